"""Tensors by name: loading, saving, initialising and changing them, and the formats of their files."""
