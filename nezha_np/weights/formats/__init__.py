"""The formats that tensors are read from, a file each; `entry` is what all of them say of a tensor.

A reader has one function, ``read_header(path) -> dict[str, Entry]``, which finds the tensors of a file and reads none.
"""

# The reader of each format by the suffix of its files. It is imported when a file of it is read: most folders hold one.
READERS = {
    ".safetensors": "safetensors",
    ".bin": "torch",
    ".pt": "torch",
    ".pth": "torch",
    ".npz": "npz",
}
SUFFIXES = ".safetensors, .bin, .pt, .pth or .npz"
