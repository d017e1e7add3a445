"""Faster equivalents of hot layers, for one array library each, loaded when an array of its library is first seen.

    known       what a kernel may assume of a family
    numpy       NumPy's: numpy_rows, numpy_attention; numpy_blocks says how large a block is
    numpy_half  NumPy's for float16, which compute in float32 by the ones above
    cupy        CuPy's: cupy_rows, cupy_attention, cupy_gradients; their CUDA C is cuda.cu, which cuda compiles and
                launches

The module with the name of a library has ``KERNELS``, which maps a layer to its kernel and the dtypes that the kernel
serves. A kernel has its definition's signature, may decline a call by returning NotImplemented, and never writes to its
arguments. A test holds every kernel equal to its definition: float64 within 1e-12, float32 within 2e-6 of the largest
number that goes in or comes out, float16 within half a unit in the last place of what the definition gives in float32.
(Not of what comes out alone: where all inputs are far below 0, gelu is nearly 0, and rounding takes all of its digits
in the definition too.)
"""
