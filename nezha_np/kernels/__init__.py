"""Faster equivalents of hot layers, one file per array library, each loaded when an array of its library is first seen.

`nezha_np.kernels.threads` divides NumPy's among threads.

A file's ``KERNELS`` maps a layer to its kernel and the dtypes that the kernel serves. A kernel has its definition's
signature, may decline a call by returning NotImplemented, and never writes to its arguments. A test holds every kernel
equal to its definition: float64 within 1e-12, float32 within 2e-6 of the largest number that goes in or comes out. (Not
of what comes out alone: gelu of numbers that are all far below 0 is next to nothing, and lost to rounding in its
definition too.)
"""
