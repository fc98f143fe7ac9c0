"""Sixteen float32 numbers at once in Numba code: the machine's room. The physics does not see it.

`float32x16` is a Numba type backed by LLVM's <16 x float>: one register where the machine has AVX-512, several where it
has not (LLVM splits it). Numbers mix with it freely (each lane gets the same). Arithmetic, comparisons, np.sqrt, np.abs,
np.maximum, np.where and np.sinc work on it, so that the scalar formulas of `physics` compile for it as they stand.

`load`, `store`      between 16 consecutive numbers of a one-dimensional float32 array, from any offset
`fma(a, b, c)`       a * b + c
`cosine_sine(turns)` cos and sin of 2π turns
`inverse_root(x)`    1 / sqrt(x)
`exp(x)`             for x < 80; also `exp_minus_one(x)`, `turn_minus_one(turns)`
`total(x)`           sum over the lanes
`transpose_block`    a 16 x 16 block between two arrays
`complex_outer`      the innermost loop of both matrix products of the simulator
"""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import llvmlite.binding as llvm
import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel.models import PrimitiveModel
from numba.core.extending import intrinsic as numba_intrinsic
from numba.core.extending import lower_builtin, lower_cast, overload, register_model
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from ..native.machine import WIDE_REGISTERS, has_wide_registers, processor, target_machine
from .layout import LANES, NARROW_SUMS, ROWS

intrinsic: Callable[..., Any] = numba_intrinsic  # its annotations count the typing context as an argument


class _Vector(types.Type):
    """LLVM's <16 x float>, or its mask."""

    def __init__(self, name: str, element: ir.Type) -> None:
        self.ir = ir.VectorType(element, LANES)
        super().__init__(name)

    def can_convert_from(self, typingctx, other):
        return Conversion.safe if self is float32x16 and isinstance(other, types.Number) else None


float32x16 = _Vector("float32x16", ir.FloatType())
mask16 = _Vector("mask16", ir.IntType(1))
_V = float32x16.ir


@register_model(_Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, fe_type.ir)


@lower_cast(types.Number, _Vector)
def _broadcast_cast(context, builder, fromty, toty, value):
    return _splat(builder, context.cast(builder, value, fromty, types.float32))


def _splat(builder, scalar):
    first = builder.insert_element(ir.Constant(_V, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(_V, ir.Undefined), zeros)


# The constant that `native.machine` links with bitcode; what Numba itself compiles finds it in the process.
_wide = ctypes.c_uint8(has_wide_registers(target_machine(*processor())))
llvm.add_symbol(WIDE_REGISTERS, ctypes.addressof(_wide))


def compiled(*function, **options):
    """Compile as `njit` does, without the interpreter's lock; kept on disk is the kernel that calls it (`native`)."""
    if not function:
        return partial(compiled, **options)
    return nb.njit(nogil=True, **options)(*function)


# --- operators and NumPy functions -----------------------------------------------------------------------------------


def _define(function, result, lower, arity=2):
    """Let `function` take vectors, at least one of them, and numbers beside them."""

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == arity and float32x16 in args:
                known = all(a is float32x16 or isinstance(a, types.Number) for a in args)
                return signature(result, *[float32x16] * arity) if known else None
            return None

    @lower_builtin(function, *[float32x16] * arity)
    def _lower(context, builder, sig, args):
        return lower(builder, *args)


def _llvm(name, *arguments):
    """Return a call to one of LLVM's vector functions."""

    def lower(builder, *args):
        kind = ir.FunctionType(_V, [_V] * len(args))
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v16f32"), args)

    return lower


_define(operator.add, float32x16, lambda b, x, y: b.fadd(x, y))
_define(operator.sub, float32x16, lambda b, x, y: b.fsub(x, y))
_define(operator.mul, float32x16, lambda b, x, y: b.fmul(x, y))
_define(operator.truediv, float32x16, lambda b, x, y: b.fdiv(x, y))
_define(operator.neg, float32x16, lambda b, x: b.fneg(x), arity=1)
_define(operator.le, mask16, lambda b, x, y: b.fcmp_ordered("<=", x, y))
_define(operator.lt, mask16, lambda b, x, y: b.fcmp_ordered("<", x, y))
_define(np.sqrt, float32x16, _llvm("sqrt"), arity=1)
_define(np.abs, float32x16, _llvm("fabs"), arity=1)
_define(np.rint, float32x16, _llvm("rint"), arity=1)
_define(np.maximum, float32x16, lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y))


@infer_global(np.where)
class _Where(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 3 and args[0] is mask16:
            return signature(float32x16, mask16, float32x16, float32x16)
        return None


@lower_builtin(np.where, mask16, float32x16, float32x16)
def _lower_where(context, builder, sig, args):
    return builder.select(*args)


@intrinsic
def fma(typingctx, a, b, c):
    """Return a * b + c, fused where the machine can."""

    def codegen(context, builder, sig, args):
        return _llvm("fmuladd")(builder, *args)

    return float32x16(float32x16, float32x16, float32x16), codegen


@intrinsic
def _two_to_the(typingctx, exponent):
    """2**exponent of whole numbers between -126 and 127, built from the bits of a float."""

    def codegen(context, builder, sig, args):
        whole = ir.VectorType(ir.IntType(32), LANES)
        biased = builder.add(builder.fptosi(args[0], whole), ir.Constant(whole, [127] * LANES))
        return builder.bitcast(builder.shl(biased, ir.Constant(whole, [23] * LANES)), _V)

    return float32x16(float32x16), codegen


@intrinsic
def _rough_root(typingctx, value):
    """1 / sqrt(value) of ordinary numbers above 0, to 4 %: half the exponent, from the bits of a float."""

    def codegen(context, builder, sig, args):
        whole = ir.VectorType(ir.IntType(32), LANES)
        half = builder.lshr(builder.bitcast(args[0], whole), ir.Constant(whole, [1] * LANES))
        return builder.bitcast(builder.sub(ir.Constant(whole, [0x5F3759DF] * LANES), half), _V)

    return float32x16(float32x16), codegen


@nb.njit
def inverse_root(x):
    """1 / sqrt(x) of ordinary numbers above 0, to 2e-7 of itself, by Newton's steps: no division, no root."""
    half = x * -0.5
    root = _rough_root(x)
    root = root * fma(half * root, root, 1.5)
    root = root * fma(half * root, root, 1.5)
    return root * fma(half * root, root, 1.5)


@nb.njit
def cosine_sine(turns):
    """Cos and sin of 2π turns. Taylor polynomials within an eighth of a turn, then whole quarters: 6e-8."""
    quarters = np.rint(turns * 4)
    angle = (turns - quarters * 0.25) * (2 * math.pi)  # the difference is exact
    square = angle * angle
    sine = fma(square, fma(square, fma(square, 1 / 362880, -1 / 5040), 1 / 120), -1 / 6)
    sine = fma(square * angle, sine, angle)
    cosine = fma(
        square, fma(square, fma(square, fma(square, fma(square, -1 / 3628800, 1 / 40320), -1 / 720), 1 / 24), -0.5), 1.0
    )
    quarters = quarters - np.rint(quarters * 0.25) * 4  # -2 to 2
    quarter_cosine, quarter_sine = 1 - np.abs(quarters), quarters * (2 - np.abs(quarters))  # -1, 0 or 1
    return quarter_cosine * cosine - quarter_sine * sine, quarter_sine * cosine + quarter_cosine * sine


@nb.njit
def turn_minus_one(turns):
    """exp(2πi turns) - 1, real and imaginary part, to 1e-7 of itself: what a recurrence adds in a step."""
    cosine, sine = cosine_sine(turns * 0.5)
    return -2 * sine * sine, 2 * sine * cosine


@nb.njit
def exp(x):
    """e**x for x < 80, to 2e-7 of itself; below -80 it stays at e**-80, as good as nothing."""
    scale, rest = _exp_parts(np.maximum(x, -80.0))
    return fma(scale, rest, scale)


@nb.njit
def exp_minus_one(x):
    """e**x - 1 for x < 80, to 2e-7 of itself near 0; below -80 it is -1."""
    scale, rest = _exp_parts(np.maximum(x, -80.0))
    return fma(scale, rest, scale - 1)


@nb.njit
def _exp_parts(x):
    """e**x as s (1 + rest): s a power of 2, rest by a Taylor polynomial within half an octave."""
    k = np.rint(x * (1 / math.log(2)))
    rest = fma(k, -0.693359375, x)  # ln 2 in two parts, the first short enough for an exact product
    rest = fma(k, 2.12194440e-4, rest)
    series = fma(rest, fma(rest, fma(rest, fma(rest, fma(rest, 1 / 720, 1 / 120), 1 / 24), 1 / 6), 0.5), 1.0)
    return _two_to_the(k), rest * series


@nb.njit
def _sinc(x):
    """sin(πx) / (πx); the series 1 - (πx)²/6 where the quotient would lose digits."""
    _, sine = cosine_sine(x * 0.5)
    small = np.abs(x) < 1e-2
    angle = np.where(small, 1.0, x * math.pi)
    return np.where(small, 1.0 - x * x * (math.pi**2 / 6), sine / angle)


@overload(np.sinc)
def _overload_sinc(x):
    if x is float32x16:
        return lambda x: _sinc(x)
    return None


# --- memory ----------------------------------------------------------------------------------------------------------


def _pointer(context, builder, kind, array, index):
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _load_vector(builder, pointer):
    value = builder.load(builder.bitcast(pointer, _V.as_pointer()))
    value.align = 4
    return value


def _store_vector(builder, value, pointer):
    builder.store(value, builder.bitcast(pointer, _V.as_pointer())).align = 4


@intrinsic
def load(typingctx, array, index):
    """array[index : index + 16]."""

    def codegen(context, builder, sig, args):
        return _load_vector(builder, _pointer(context, builder, sig.args[0], *args))

    return float32x16(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """array[index : index + 16] = value."""

    def codegen(context, builder, sig, args):
        _store_vector(builder, args[2], _pointer(context, builder, sig.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16), codegen


@intrinsic
def total(typingctx, value):
    """Sum over the lanes: halves added to halves."""

    def codegen(context, builder, sig, args):
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            order = [i % width + width if i < width else 0 for i in range(LANES)]
            other = builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(ir.IntType(32), LANES), order))
            value = builder.fadd(value, other)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(float32x16), codegen


@intrinsic
def transpose_block(typingctx, source, source_at, source_step, target, target_at, target_step):
    """target[target_at + j target_step + i] = source[source_at + i source_step + j] for i, j < 16."""

    def codegen(context, builder, sig, args):
        source, source_at, source_step, target, target_at, target_step = args
        rows = []
        for i in range(LANES):
            index = builder.add(source_at, builder.mul(source_step, ir.Constant(source_at.type, i)))
            rows.append(_load_vector(builder, _pointer(context, builder, sig.args[0], source, index)))
        # Four rounds of interleaving row i with row i + 8 are a transpose.
        low = [i // 2 + LANES * (i % 2) for i in range(LANES)]
        for _ in range(4):
            mixed = []
            for i in range(LANES // 2):
                for half in (0, LANES // 2):
                    order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [k + half for k in low])
                    mixed.append(builder.shuffle_vector(rows[i], rows[i + LANES // 2], order))
            rows = mixed
        for j in range(LANES):
            index = builder.add(target_at, builder.mul(target_step, ir.Constant(target_at.type, j)))
            _store_vector(builder, rows[j], _pointer(context, builder, sig.args[3], target, index))
        return context.get_dummy_value()

    whole = types.intp
    return types.void(source, whole, whole, target, whole, whole), codegen


# --- the innermost loop ----------------------------------------------------------------------------------------------


def _wide_registers(builder):
    """Whether one register takes a vector: a constant of the machine, which code for several leaves open."""
    byte = ir.IntType(8)
    if WIDE_REGISTERS not in builder.module.globals:
        told = ir.GlobalVariable(builder.module, byte, WIDE_REGISTERS)
        told.global_constant = True
    value = builder.load(builder.module.globals[WIDE_REGISTERS])
    return builder.icmp_unsigned("!=", value, ir.Constant(byte, 0))


def _evenly(items, most):
    """Cut a list into the fewest pieces of at most `most`, as equal as can be."""
    n = -(-len(items) // most)
    return [items[len(items) * i // n : len(items) * (i + 1) // n] for i in range(n)]


def _add_products(builder, chosen, base, column, row, n):
    """Add n products to the chosen sums (part, row), which stay in registers. Each has its own: their number is free."""
    (column, s_part, s_row, s_step), (row, v_part, v_step) = column, row
    word, fuse = n.type, _llvm("fmuladd")
    before = builder.block
    places = [builder.gep(base, [ir.Constant(word, LANES * (3 * j + p))]) for p, j in chosen]
    starts = [_load_vector(builder, place) for place in places]
    offsets = [
        builder.add(builder.mul(s_row, ir.Constant(word, j)), builder.mul(s_part, ir.Constant(word, p)))
        for p, j in chosen
    ]
    loop, after = builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(word)
    k.add_incoming(ir.Constant(word, 0), before)
    totals = [builder.phi(_V) for _ in starts]
    for phi, start in zip(totals, starts, strict=True):
        phi.add_incoming(start, before)
    here = builder.gep(row, [builder.mul(k, v_step)])
    parts = {
        p: _load_vector(builder, builder.gep(here, [builder.mul(v_part, ir.Constant(word, p))]))
        for p in sorted({p for p, _ in chosen})
    }
    step = builder.gep(column, [builder.mul(k, s_step)])
    for (p, _), offset, phi in zip(chosen, offsets, totals, strict=True):
        scalar = _splat(builder, builder.load(builder.gep(step, [offset])))
        phi.add_incoming(fuse(builder, scalar, parts[p], phi), loop)
    following = builder.add(k, ir.Constant(word, 1))
    k.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
    builder.position_at_end(after)
    for phi, place in zip(totals, places, strict=True):
        _store_vector(builder, phi.incomings[1][0], place)


@intrinsic
def complex_outer(typingctx, sums, at, scalars, s_at, s_part, s_row, s_step, vectors, v_at, v_part, v_step, n, rows):
    """Add n outer products of a complex column (scalars) and a complex row of 16 lanes (vectors) to `sums`.

    A complex number is three parts: real, imaginary, and their sum, so that a complex product is three real ones (Gauss):
    with a = x.re y.re, b = x.im y.im, c = (x.re + x.im)(y.re + y.im), x y = (a - b) + i (c - a - b). For each k < n,
    row j < rows and part p < 3:

        sums[at + 48 j + 16 p + lane] +=
            scalars[s_at + s_part p + s_row j + s_step k] * vectors[v_at + v_part p + v_step k + lane]

    `rows` is 1 to 8, each with code of its own. The sums stay in registers: all of them where one register takes 16 lanes,
    else NARROW_SUMS at a time, in as many loops over k. No sum's order depends on it, so the bytes are the same.
    """

    def codegen(context, builder, sig, args):
        sums, at, scalars, s_at, s_part, s_row, s_step, vectors, v_at, v_part, v_step, n, rows = args
        word = at.type
        base = _pointer(context, builder, sig.args[0], sums, at)
        column = _pointer(context, builder, sig.args[2], scalars, s_at)
        row = _pointer(context, builder, sig.args[7], vectors, v_at)
        done = builder.append_basic_block("outer.done")
        wide, narrow = builder.append_basic_block("outer.wide"), builder.append_basic_block("outer.narrow")
        builder.cbranch(_wide_registers(builder), wide, narrow)
        for block, held in ((wide, 3 * ROWS), (narrow, NARROW_SUMS)):
            builder.position_at_end(block)
            choice = builder.switch(rows, done)
            for count in range(1, ROWS + 1):
                case = builder.append_basic_block(f"{block.name}.{count}")
                choice.add_case(ir.Constant(word, count), case)
                builder.position_at_end(case)
                for some in _evenly([(p, j) for p in range(3) for j in range(count)], held):
                    _add_products(builder, some, base, (column, s_part, s_row, s_step), (row, v_part, v_step), n)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(sums, whole, scalars, *[whole] * 4, vectors, *[whole] * 5), codegen
