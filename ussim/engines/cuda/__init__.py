"""The engine on NVIDIA cards: kernels compiled by NVRTC, through CuPy."""
