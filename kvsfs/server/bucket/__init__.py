"""The storage in a distributed object store: any number of servers over one bucket."""
