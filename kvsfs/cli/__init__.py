"""The commands: each parses, prints and exits; none holds logic."""
