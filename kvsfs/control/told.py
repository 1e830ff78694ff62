"""A status as commands read it: light, so that `kvsfs umount` waits for no import of the file system's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOUNTED, DRAINING, NOT_MOUNTED = "mounted", "draining", "not mounted"

Told = Mapping[str, Any]
"""A status as it comes out of a control socket, or of `control.left`."""
