"""File format readers, one small module per family of formats; each registers itself by suffix."""
