"""`kvsfs doctor`: what a mount would need, looked at one by one; nothing is mounted and nothing changed."""
