"""Matrices that are kept in 16 bits and computed with in float32.

A processor has no arithmetic in 16 bits. `NarrowMatrix` keeps a matrix in them, and widens it to float32 tile by tile,
in cache, where it is multiplied.

    bfloat16   the upper half of the bits of a float32, which NumPy does not have
    float16    which NumPy has, and converts number by number
    tiles      which are widened one after the other
    matrix     the matrix that NumPy's functions take for one in float32
"""
