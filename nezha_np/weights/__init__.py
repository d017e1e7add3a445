"""Tensors by name: loading, saving, drawing and changing them, and the formats they are read from."""
