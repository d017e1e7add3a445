"""The formats of the files that hold tensors, one module for each; safetensors is written too.

A reader has one function, ``read_header(path) -> dict[str, Entry]``, which finds the tensors of a file without reading
their numbers. `entry` describes a tensor in a file, for all formats alike, and makes arrays of the descriptions.
"""

# The reader of each format by the suffix of its files. It is imported when a file of it is read: most folders hold one.
READERS = {
    ".safetensors": "safetensors",
    ".bin": "torch",
    ".pt": "torch",
    ".pth": "torch",
    ".ckpt": "torch",
    ".npz": "npz",
}
# The same, in words, for errors.
SUFFIXES = ".safetensors, .bin, .pt, .pth, .ckpt or .npz"
