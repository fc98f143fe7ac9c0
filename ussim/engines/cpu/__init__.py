"""The engine on any machine: kernels compiled by Numba."""
