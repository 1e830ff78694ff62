"""Cache files: the bytes of open and recently read records on the local disk."""
