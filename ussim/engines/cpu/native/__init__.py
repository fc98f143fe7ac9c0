"""Kernels without a compiler in the process: Numba's output, shipped as LLVM bitcode, compiled where it is first run.

    kernels/*.py ─► export (developers; Numba) ─► bitcode/*.bc, shipped ─► machine (LLVM) ─► object code, in the user's cache

`kernel` is what the engine calls. Where the bitcode cannot be used (edited sources, an older LLVM) Numba compiles the
same sources here. docs/kernels.md is the page for those who change kernels.
"""
