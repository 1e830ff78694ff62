"""`python -m kvsfs`."""

from __future__ import annotations

import sys

from kvsfs.cli import main

if __name__ == "__main__":
    sys.exit(main())
