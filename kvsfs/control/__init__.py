"""The control socket of each mount: what a user sees of it and steers, from another process."""
