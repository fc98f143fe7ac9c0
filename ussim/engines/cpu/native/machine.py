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

# What kernels leave open: whether one register takes 16 float32 (AVX-512) or several do (AVX2, Arm). How many sums are held
# in registers at once follows it, no result does.
WIDE_REGISTERS = "ussim_wide_registers"
VECTOR_SUM = """define <16 x float> @sum(<16 x float> %x) {
  %y = fadd <16 x float> %x, %x
  ret <16 x float> %y
}"""


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


def processor(cpu: str | None = None, features: str | None = None) -> tuple[str, str]:
    """Return the name and features of a processor as LLVM has them; by default of the one at hand."""
    import llvmlite.binding as llvm

    if cpu is None:
        cpu = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
        features = os.environ.get("NUMBA_CPU_FEATURES")
    return cpu, llvm.get_host_cpu_features().flatten() if features is None else features


def target_machine(cpu: str, features: str, triple: str | None = None) -> Any:
    """Return LLVM's target machine of a processor, by default on the platform at hand."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(triple or llvm.get_process_triple())
    relocation = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=relocation, codemodel="jitdefault", jit=True
    )


def has_wide_registers(target: Any) -> bool:
    """Whether code for a target machine of LLVM keeps a vector of 16 float32 in one register."""
    import llvmlite.binding as llvm

    return "%zmm" in target.emit_assembly(llvm.parse_assembly(VECTOR_SUM))


def optimized(bitcode: bytes, target: Any) -> Any:
    """Return a kernel's module, optimized for a target machine of LLVM."""
    import llvmlite.binding as llvm

    module = llvm.parse_bitcode(bitcode)
    module.triple, module.data_layout = target.triple, str(target.target_data)
    told = llvm.parse_assembly(f"@{WIDE_REGISTERS} = linkonce_odr constant i8 {has_wide_registers(target):d}")
    told.triple, told.data_layout = module.triple, module.data_layout
    module.link_in(told)
    for round_ in ROUNDS:
        options = llvm.create_pipeline_tuning_options(speed_level=round_["speed"])
        options.loop_vectorization, options.slp_vectorization = round_["loops"], False
        builder = llvm.create_pass_builder(target, options)
        passes = builder.getModulePassManager()
        for name in round_["passes"]:
            getattr(passes, f"add_{name}_pass")()
        passes.add_refprune_pass()
        passes.run(module, builder)
    return module


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
        cpu, features = processor(cpu, features)
        self._target = target_machine(cpu, features)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._target)
        self._stamp = repr(
            (llvmlite.__version__, llvm.llvm_version_info, self._target.triple, cpu, features, ROUNDS)
        ).encode()

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
        code: bytes = self._target.emit_object(optimized(bitcode, self._target))
        return code

    def add(self, name: str, code: bytes) -> Callable[[bytes], int]:
        """Take object code in; return the function, which runs without the interpreter's lock."""
        self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p)(self._engine.get_function_address(f"ussim_{name}"))
