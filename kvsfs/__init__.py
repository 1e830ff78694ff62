"""kvsfs: an Apify key-value store as a folder on Linux."""
