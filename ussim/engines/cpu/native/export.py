"""Kernels as LLVM bitcode: `python -m ussim.engines.cpu.native.export` writes what is shipped, after a kernel was edited.

Of each kernel one module: the function and all it calls, not yet optimized for any processor, and an entry of C's calling
convention that reads its arguments from one block of 8-byte words (`kernel`). Neither Python nor Numba's runtime is in it:
memory is malloc's. The only file that knows Numba from within; tests/test_native.py holds it to the version that is pinned.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext
from numba.core.registry import cpu_target
from numba.np import numpy_support
from numba.np.arrayobj import populate_array

from .. import kernels
from . import shipped
from .kernel import Array, Group, Kernel, Number

WORD = ir.IntType(64)
NUMBERS = {int: types.int64, float: types.float64, bool: types.boolean}
# Numba's counted memory on malloc and free. A header of 64 bytes: count, destructor, its data, address, size, allocator.
MEMORY = """
declare ptr @malloc(i64)
declare void @free(ptr)
define linkonce_odr noalias ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align32) {
  %align = zext i32 %align32 to i64
  %headed = add i64 %size, 64
  %whole = add i64 %headed, %align
  %info = call ptr @malloc(i64 %whole)
  %none = icmp eq ptr %info, null
  br i1 %none, label %done, label %fill
fill:
  %start = ptrtoint ptr %info to i64
  %behind = add i64 %start, 63
  %up = add i64 %behind, %align
  %mask = sub i64 0, %align
  %place = and i64 %up, %mask
  %data = inttoptr i64 %place to ptr
  store i64 1, ptr %info
  %f1 = getelementptr i64, ptr %info, i64 1
  store i64 0, ptr %f1
  %f2 = getelementptr i64, ptr %info, i64 2
  store i64 0, ptr %f2
  %f3 = getelementptr i64, ptr %info, i64 3
  store ptr %data, ptr %f3
  %f4 = getelementptr i64, ptr %info, i64 4
  store i64 %size, ptr %f4
  br label %done
done:
  ret ptr %info
}
define linkonce_odr void @NRT_MemInfo_call_dtor(ptr %info) {
  call void @free(ptr %info)
  ret void
}
define linkonce_odr noalias ptr @NRT_Allocate(i64 %size) {
  %data = call ptr @malloc(i64 %size)
  ret ptr %data
}
define linkonce_odr void @NRT_Free(ptr %data) {
  call void @free(ptr %data)
  ret void
}
"""
NOT_THERE = ("Py", "numba_", "NRT_")  # what begins so is Python's or Numba's, and no process of a user has it


def export(kernel: Kernel[...]) -> bytes:
    """Return the bitcode of a kernel.

    Raises
    ------
    RuntimeError
        The kernel needs Python or Numba's runtime: an exception with a text that is made, an array of Python objects.
    """
    function = getattr(import_module(kernel.module), kernel.name)
    signature = tuple(map(numba_type, kernel.arguments))
    with _only_what_is_exported(kernel.name):
        function.compile(signature)
        compiled = function.overloads[signature]
        compiled.library._ensure_finalized()
    module = compiled.library._final_module.clone()
    module.link_in(llvm.parse_assembly(cgutils.normalize_ir_text(str(_entry(kernel.name, signature, compiled.fndesc)))))
    memory = llvm.parse_assembly(MEMORY)
    memory.triple, memory.data_layout = module.triple, module.data_layout
    module.link_in(memory)
    _keep_only(module, f"ussim_{kernel.name}")
    missing = [f.name for f in module.functions if f.is_declaration and f.name.startswith(NOT_THERE)]
    if missing:
        raise RuntimeError(f"{kernel.name}: would need Python: {', '.join(missing)}")
    return _without_places(module, kernel.name)


def numba_type(argument: Number | Array | Group) -> Any:
    """Return Numba's type of a declared argument."""
    if isinstance(argument, Number):
        return NUMBERS[argument.kind]
    if isinstance(argument, Array):
        return types.Array(numpy_support.from_dtype(np.dtype(argument.dtype)), argument.ndim, "C")
    members = tuple(map(numba_type, argument.members))
    return types.BaseTuple.from_types(members, *([] if argument.kind is tuple else [argument.kind]))


# --- the entry -------------------------------------------------------------------------------------------------------


def _entry(name: str, signature: tuple[Any, ...], description: Any) -> Any:
    """Return a module with `int32 ussim_NAME(int64 *block)`: reads the arguments, calls the kernel, returns its status."""
    context = cpu_target.target_context
    module = context.codegen()._create_empty_module(name)
    function = ir.Function(module, ir.FunctionType(ir.IntType(32), [WORD.as_pointer()]), name=f"ussim_{name}")
    builder = ir.IRBuilder(function.append_basic_block())
    words = _words(builder, function.args[0])
    values = [_value(context, builder, words, kind) for kind in signature]
    callee = context.declare_function(module, description)
    status, _ = context.call_conv.call_function(builder, callee, description.restype, description.argtypes, values)
    builder.ret(status.code)
    return module


def _words(builder: Any, block: Any) -> Iterator[Any]:
    at = 0
    while True:
        yield builder.load(builder.gep(block, [ir.Constant(WORD, at)]))
        at += 1


def _value(context: Any, builder: Any, words: Iterator[Any], kind: Any) -> Any:
    """Return the next argument, of Numba's type `kind`."""
    if isinstance(kind, types.BaseTuple):
        members: Any = kind
        return context.make_tuple(builder, kind, [_value(context, builder, words, member) for member in members])
    if isinstance(kind, types.Array):
        return _array(context, builder, words, kind)
    word = next(words)
    if kind == types.float64:
        return builder.bitcast(word, ir.DoubleType())
    return builder.trunc(word, ir.IntType(1)) if kind == types.boolean else word


def _array(context: Any, builder: Any, words: Iterator[Any], kind: Any) -> Any:
    array = context.make_array(kind)(context, builder)
    element = context.get_data_type(kind.dtype)
    data = builder.inttoptr(next(words), element.as_pointer())
    shape = [next(words) for _ in range(kind.ndim)]
    size = context.get_constant(types.intp, context.get_abi_sizeof(element))
    strides = [size]
    for extent in shape[:0:-1]:
        strides.insert(0, builder.mul(strides[0], extent))
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return array._getvalue()


# --- Numba's steps ---------------------------------------------------------------------------------------------------


@contextmanager
def _only_what_is_exported(entry: str) -> Iterator[None]:
    """Let Numba neither make machine code nor wrap functions for Python; its lock is held, as its steps are exchanged.

    Functions that kernels call are inlined and simplified, which is good for any processor; loops are unrolled and
    vectorized where they are compiled. Without the simplification LLVM spills the vectors of a transform.
    """

    def optimize(library: Any) -> None:
        if library.name != entry:
            for level in (0, 3):
                options = llvm.create_pipeline_tuning_options(speed_level=level)
                options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
                builder = llvm.create_pass_builder(library._codegen._tm, options)
                passes = builder.getModulePassManager()
                passes.add_refprune_pass()
                passes.run(library._final_module, builder)

    def finalize(library: Any) -> None:
        library._finalize_dynamic_globals()
        library._finalized = True

    def nothing(*arguments: Any, **named: Any) -> None:
        return

    steps: dict[tuple[type, str], Any] = {
        (CPUCodeLibrary, "_optimize_final_module"): optimize,
        (CPUCodeLibrary, "_finalize_final_module"): finalize,
        (CPUContext, "create_cpython_wrapper"): nothing,
        (CPUContext, "create_cfunc_wrapper"): nothing,
        (CPUContext, "get_executable"): lambda *_: object().__reduce__,  # Numba wants a key of its own for each
    }
    with global_compiler_lock:
        usual = {place: getattr(*place) for place in steps}
        try:
            for place, step in steps.items():
                setattr(*place, step)
            yield
        finally:
            for place, step in usual.items():
                setattr(*place, step)


# --- the same bytes each time ----------------------------------------------------------------------------------------


def _keep_only(module: Any, entry: str) -> None:
    """Drop what the entry does not reach, and Numba's names, which are long and differ from run to run."""

    def mine() -> list[Any]:
        items = [*module.functions, *module.global_variables]
        return [item for item in items if not item.is_declaration and item.name != entry]

    for item in mine():
        item.linkage = "internal"
    builder = llvm.create_pass_builder(
        cpu_target.target_context.codegen()._tm, llvm.create_pipeline_tuning_options(speed_level=0)
    )
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_strip_dead_prototype_pass()
    passes.run(module, builder)
    for i, item in enumerate(mine()):
        item.name = f"_{i}"
    module.verify()


def _without_places(module: Any, name: str) -> bytes:
    """Return the bitcode without what Numba knows of this machine.

    Pickled exceptions hold paths, and only their status is looked at; domains of aliasing are named after functions.
    """
    text = re.sub(r'(distinct !\{[^"}]*), !"[^"]*"\}', r"\1}", str(module))
    exception = r"\{ ptr, i32, ptr, ptr, i32 \} \{ ptr (@\w+), i32 \d+, ptr (@\w+)"
    for names in re.findall(exception, text):
        for message in names:
            content = rf'^{message} = internal constant \[\d+ x i8\] c".*$'
            text = re.sub(content, f"{message} = internal constant [1 x i8] zeroinitializer", text, flags=re.M)
    text = re.sub(exception, r"{ ptr, i32, ptr, ptr, i32 } { ptr \1, i32 0, ptr \2", text)
    clean = llvm.parse_assembly(text)
    clean.name = name
    code: bytes = clean.as_bitcode()
    return code


def main() -> None:
    """Export all kernels and write the index."""
    digests = {}
    for kernel in kernels.KERNELS:
        code = export(kernel)
        (shipped.FOLDER / f"{kernel.name}.bc").write_bytes(code)
        digests[kernel.name] = hashlib.sha256(code).hexdigest()
        print(f"{kernel.name}: {len(code):,} bytes")
    for stale in {*shipped.FOLDER.glob("*.bc")} - {shipped.FOLDER / f"{name}.bc" for name in digests}:
        stale.unlink()
    index = {
        "sources": shipped.sources_digest(),
        "python": ".".join(map(str, sys.version_info[:2])),
        "numba": numba.__version__,
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "kernels": digests,
    }
    shipped.INDEX.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
