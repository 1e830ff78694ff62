"""`python -m kvsfs`."""

from __future__ import annotations

from kvsfs.cli import main

if __name__ == "__main__":
    main()
