"""Machine code of bitcode: LLVM optimizes it for the processor at hand; object code is kept for the next process.

LLVM is llvmlite's, which Numba brings; Numba itself is not imported. `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` name another
processor than the one at hand, as they do for Numba.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from .... import cached
from ....waiting import taking
from . import shipped

# Two rounds: first everything is inlined and cheaply cleaned, so that the counting of references can be pruned.
ROUNDS: tuple[dict[str, Any], ...] = (
    {"speed": 0, "loops": False, "passes": ("loop_rotate", "instruction_combine", "jump_threading")},
    {"speed": 3, "loops": True, "passes": ()},
)
# What compiled kernels call of the C library; looked for before LLVM, which ends the process where it finds one missing.
CALLED = (
    "malloc",
    "free",
    "memset",
    "memcpy",
    "memmove",
    "sin",
    "cos",
    "floor",
    "rint",
    "floorf",
    "rintf",
    "fma",
    "fmaf",
)


def load(name: str) -> Callable[[bytes], int]:
    """Return a kernel, callable with its block of arguments and returning 0.

    Raises
    ------
    ImportError
        The bitcode cannot be used: none is shipped, LLVM is too old for it, nobody has tried the platform.
    """
    if sys.platform == "win32" or sys.maxsize < 2**32:
        raise ImportError(f"not tried on {sys.platform} with pointers of {sys.maxsize.bit_length() + 1} bits")
    try:
        here = Machine.here()
        return here.add(name, here.object_code(name, shipped.bitcode(name)))
    except (OSError, ValueError, RuntimeError, AttributeError) as error:  # of a newer LLVM; an older llvmlite
        raise ImportError(f"{name}.bc: {error}") from error


class Machine:
    """A processor, and an engine that holds machine code for it.

    Parameters
    ----------
    cpu, features : str, optional
        As LLVM names them; by default the processor at hand.
    """

    def __init__(self, cpu: str | None = None, features: str | None = None) -> None:
        import llvmlite
        import llvmlite.binding as llvm

        self._llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        if cpu is None:
            cpu = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
            features = os.environ.get("NUMBA_CPU_FEATURES")
        if features is None:
            features = llvm.get_host_cpu_features().flatten()
        triple = llvm.get_process_triple()
        target = llvm.Target.from_triple(triple)
        relocation = "static" if target.name.startswith("x86") else "default"
        self._target = target.create_target_machine(
            cpu=cpu, features=features, opt=3, reloc=relocation, codemodel="jitdefault", jit=True
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._target)
        self._stamp = repr((llvmlite.__version__, llvm.llvm_version_info, triple, cpu, features, ROUNDS)).encode()

    @staticmethod
    @cache
    def here() -> Machine:
        """Return the processor at hand.

        Raises
        ------
        ImportError
            The process has no function of the C library that a kernel may call.
        """
        here = Machine()
        missing = [name for name in CALLED if here._llvm.address_of_symbol(name) is None]
        if missing:
            raise ImportError(f"no {', '.join(missing)} in this process")
        return here

    def object_code(self, name: str, bitcode: bytes) -> bytes:
        """Return the kernel's machine code, from the cache or compiled."""
        key = f"{name}-{hashlib.sha256(self._stamp + bitcode).hexdigest()[:32]}.o"
        code = cached.read(key)
        if code is None:
            with taking("making machine code of the kernels for this processor: some seconds, the first time only"):
                code = self.compile(bitcode)
            cached.keep(key, code)
        return code

    def compile(self, bitcode: bytes) -> bytes:
        """Make object code of bitcode.

        Raises
        ------
        RuntimeError
            The bitcode is of a newer LLVM, or damaged.
        """
        llvm = self._llvm
        module = llvm.parse_bitcode(bitcode)
        module.triple, module.data_layout = self._target.triple, str(self._target.target_data)
        for round_ in ROUNDS:
            options = llvm.create_pipeline_tuning_options(speed_level=round_["speed"])
            options.loop_vectorization, options.slp_vectorization = round_["loops"], False
            builder = llvm.create_pass_builder(self._target, options)
            passes = builder.getModulePassManager()
            for name in round_["passes"]:
                getattr(passes, f"add_{name}_pass")()
            passes.add_refprune_pass()
            passes.run(module, builder)
        code: bytes = self._target.emit_object(module)
        return code

    def add(self, name: str, code: bytes) -> Callable[[bytes], int]:
        """Take object code in; return the function, which runs without the interpreter's lock."""
        self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p)(self._engine.get_function_address(f"ussim_{name}"))
