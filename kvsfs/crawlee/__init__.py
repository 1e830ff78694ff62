"""Crawlee's folders of local data, as stores are copied into them and out of them."""
