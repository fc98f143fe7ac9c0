"""Kernels of the CPU engine: what Numba compiles, and the layout of what they read and write. Nothing else is here."""
