"""The formats that tensors are read from and written to, one a file; `entry` is what all of them say of a tensor."""
