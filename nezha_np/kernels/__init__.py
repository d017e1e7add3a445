"""Faster equivalents of hot layers, one file per array library, each loaded when an array of its library is first seen.

A file's ``KERNELS`` maps a layer to its kernel and the dtypes that the kernel serves. A kernel has its definition's
signature, may decline a call by returning NotImplemented, and never writes to its arguments. A test holds every kernel
equal to its definition.
"""
