"""What the kernel keeps of a mount, and is told to forget."""

from __future__ import annotations


class KernelCaches:
    """The kernel's cached attributes, pages and names. This one stands for no kernel; `fuse/` has the real one.

    No method checkpoints, raises or waits: what may block in the kernel is done later, elsewhere. So each may be
    called under a lock and by a request handler, and nobody may count on it having happened.
    """

    def attributes_changed(self, inode: int) -> None:
        """Have attributes asked for again: the size in particular, by which the kernel cuts reads."""

    def pages_changed(self, inode: int) -> None:
        """Have attributes and pages asked for again. Only of files that nobody has open on an older version."""

    def entry_gone(self, parent: int, name: bytes, inode: int) -> None:
        """Have a name looked up again that stood for `inode`; who watches it (inotify(7)) is told."""
