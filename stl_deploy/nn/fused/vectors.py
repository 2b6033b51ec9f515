"""Fixed-width vectors for numba, which vectorises only long, simple loops itself.

`load`, `fill`, arithmetic and comparison make `Lanes` and `Mask` values that live in registers; LLVM splits them where
the processor's are shorter. Each step is an operation of its own: nothing is contracted or reordered. Memory is named
by a `Row`, a place in an array that somebody else keeps alive: arrays as arguments are counted, in the innermost loop.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = 16
"""Numbers in a vector."""
_INDEX = ir.IntType(32)


def operation(build: Callable[..., Any]) -> Any:
    """Register an operation on vectors or rows for compiled code."""
    return intrinsic(build)


class Row(types.Type):
    """The numba type of a place in memory from which numbers lie side by side; nothing is checked."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Row({dtype})")


class Lanes(types.Type):
    """The numba type of `LANES` numbers."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


class Mask(types.Type):
    """The numba type of `LANES` truth values."""

    def __init__(self) -> None:
        super().__init__(name="Mask")


@register_model(Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, dmm.lookup(fe_type.dtype).get_data_type().as_pointer())  # type: ignore[no-untyped-call]


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(dmm.lookup(fe_type.dtype).get_value_type(), LANES))  # type: ignore[no-untyped-call]


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), LANES))  # type: ignore[no-untyped-call]


def _every(value: ir.Constant | float) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(32), LANES), [value] * LANES)


@operation
def row_at(_: Any, array: Any, place: Any) -> Any:
    """Return the row at ``array[place]`` of a contiguous one-dimensional array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.gep(data, [arguments[1]])

    return Row(array.dtype)(array, place), generate


@operation
def load(_: Any, row: Any, place: Any, count: Any) -> Any:
    """Load the ``count`` numbers from ``place`` on, 0 in the lanes from count on.

    A row of uint16 holds the bits of bfloat16 and is read as float32.
    """
    narrow = row.dtype == types.uint16
    result = Lanes(types.float32 if narrow else row.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.gep(arguments[0], [arguments[1]])
        element = pointer.type.pointee
        vector = ir.VectorType(element, LANES)
        full = builder.icmp_unsigned("==", arguments[2], ir.Constant(arguments[2].type, LANES))
        with builder.if_else(full) as (then, otherwise):
            with then:
                every = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=size_of(context, element))
                whole = builder.block
            with otherwise:
                some = cgutils.alloca_once(builder, vector)
                builder.store(ir.Constant(vector, None), some)
                _copy(builder, pointer, builder.bitcast(some, element.as_pointer()), arguments[2])
                rest, part = builder.load(some), builder.block
        bits = builder.phi(vector)
        bits.add_incoming(every, whole)
        bits.add_incoming(rest, part)
        if not narrow:
            return bits
        words = builder.shl(builder.zext(bits, ir.VectorType(ir.IntType(32), LANES)), _every(16))
        return builder.bitcast(words, ir.VectorType(ir.FloatType(), LANES))

    return result(row, place, count), generate


@operation
def store(_: Any, row: Any, place: Any, count: Any, lanes: Any) -> Any:
    """Write the first ``count`` lanes from ``place`` on.

    As bfloat16 where the row is uint16: to the nearest, ties to even; NaN stays NaN.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, value = builder.gep(arguments[0], [arguments[1]]), arguments[3]
        if signature.args[0].dtype == types.uint16:
            value = _rounded(builder, value)
        full = builder.icmp_unsigned("==", arguments[2], ir.Constant(arguments[2].type, LANES))
        with builder.if_else(full) as (then, otherwise):
            with then:
                target = builder.bitcast(pointer, value.type.as_pointer())
                builder.store(value, target, align=size_of(context, value.type.element))
            with otherwise:
                some = cgutils.alloca_once(builder, value.type)
                builder.store(value, some)
                _copy(builder, builder.bitcast(some, pointer.type), pointer, arguments[2])
        return context.get_dummy_value()

    return types.void(row, place, count, lanes), generate


@operation
def is_aligned(_: Any, row: Any) -> Any:
    """Return whether `stream` can write at a row's begin."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.ptrtoint(arguments[0], ir.IntType(64))
        size = LANES * size_of(context, arguments[0].type.pointee)
        return builder.icmp_unsigned("==", builder.urem(address, ir.Constant(address.type, size)), address.type(0))

    return types.boolean(row), generate


@operation
def stream(_: Any, row: Any, place: Any, lanes: Any) -> Any:
    """Write all lanes, past the caches, at a multiple of `LANES` in a row that `is_aligned`.

    For what is read much later: memory that is written in full is then not read before.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = builder.gep(arguments[0], [arguments[1]])
        written = builder.store(
            arguments[2],
            builder.bitcast(target, arguments[2].type.as_pointer()),
            align=LANES * size_of(context, target.type.pointee),
        )
        written.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(row, place, lanes), generate


def _rounded(builder: Any, value: Any) -> Any:
    """Round float32 to the bits of bfloat16."""
    words = builder.bitcast(value, ir.VectorType(ir.IntType(32), LANES))
    tie = builder.and_(builder.lshr(words, _every(16)), _every(1))
    rounded = builder.lshr(builder.add(builder.add(words, _every(0x7FFF)), tie), _every(16))
    chosen = builder.select(builder.fcmp_ordered("ord", value, value), rounded, _every(0x7FC0))
    return builder.trunc(chosen, ir.VectorType(ir.IntType(16), LANES))


def _copy(builder: Any, source: Any, target: Any, count: Any) -> None:
    with cgutils.for_range(builder, count) as loop:
        builder.store(builder.load(builder.gep(source, [loop.index])), builder.gep(target, [loop.index]))


def broadcast(builder: Any, number: Any) -> Any:
    """Return a vector of `LANES` times the same number, in LLVM's terms."""
    kind = ir.VectorType(number.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))


def size_of(context: Any, element: Any) -> int:
    """Return the bytes of a number."""
    size: int = context.get_abi_sizeof(element)
    return size


@operation
def fill(_: Any, number: Any) -> Any:
    """Return a number in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return broadcast(builder, arguments[0])

    return Lanes(number)(number), generate


@operation
def at_least(_: Any, a: Any, b: Any) -> Any:
    """Return where ``a >= b``; false for NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fcmp_ordered(">=", *arguments)

    return Mask()(a, b), generate


@operation
def either(_: Any, a: Any, b: Any) -> Any:
    """Return where one mask or the other holds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.or_(*arguments)

    return Mask()(a, b), generate


@operation
def choose(_: Any, mask: Any, yes: Any, no: Any) -> Any:
    """Return ``yes`` where the mask holds, ``no`` elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return yes(mask, yes, no), generate


@operation
def exp(_: Any, x: Any) -> Any:
    """Return e to each lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        name = f"llvm.exp.v{LANES}{kind.element.intrinsic_name}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
        return builder.call(function, arguments)

    return x(x), generate


def _arithmetic(name: str, symbol: Any) -> None:
    """Register arithmetic on two `Lanes`. Not by ``overload``: numba would type the inlined code anew everywhere."""

    @type_callable(symbol)
    def typed(_: Any) -> Callable[[Any, Any], Any]:
        return lambda a, b: a if isinstance(a, Lanes) and a == b else None

    @lower_builtin(symbol, Lanes, Lanes)  # type: ignore[untyped-decorator]
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, name)(*arguments)


for _name, _symbol in (
    ("fadd", operator.add), ("fsub", operator.sub), ("fmul", operator.mul), ("fdiv", operator.truediv),
):  # fmt: skip
    _arithmetic(_name, _symbol)
