"""The `whirl` command."""
