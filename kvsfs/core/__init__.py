"""The file system in plain Python types: no pyfuse3, no httpx."""
