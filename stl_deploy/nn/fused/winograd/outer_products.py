"""Sum outer products in registers, for Winograd's convolutions; an intrinsic for numba."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from stl_deploy.nn.fused.vectors import LANES, broadcast, operation, size_of


def outer_products(rows: int, of_row: int, of_step: int) -> Any:
    """Return a function that adds up outer products of ``rows`` numbers with two vectors, all in registers.

    ``add(a, jump, b, b_apart, c, c_apart, groups, steps, onto)``: for group g and step k, in order, number r is
    ``a[g·jump + k·of_step + r·of_row]``, vector w begins at ``b[(g·steps + k)·LANES + w·b_apart]``, and their products
    are added to what stands at ``c[r·LANES + w·c_apart]``, or, if not ``onto``, to 0. Multiplication and addition are
    rounded once where the processor can.
    """
    wide = range(2)

    @operation
    def add(
        _: Any, a: Any, jump: Any, b: Any, b_apart: Any, c: Any, c_apart: Any, groups: Any, steps: Any, onto: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, jump, b, b_apart, c, c_apart, groups, steps, onto = arguments
            element, index = a.type.pointee, jump.type
            vector = ir.VectorType(element, LANES)
            name = f"llvm.fmuladd.v{LANES}{element.intrinsic_name}"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)

            def there(base: Any, fixed: int, w: int, apart: Any) -> Any:
                row = builder.gep(builder.gep(base, [builder.mul(apart, index(w))]), [index(fixed)])
                return builder.bitcast(row, vector.as_pointer())

            size = size_of(context, element)
            totals = {(r, w): cgutils.alloca_once(builder, vector) for r in range(rows) for w in wide}
            for place in totals.values():
                builder.store(ir.Constant(vector, None), place)
            with builder.if_then(onto):
                for (r, w), place in totals.items():
                    builder.store(builder.load(there(c, r * LANES, w, c_apart), align=size), place)
            with cgutils.for_range(builder, groups) as group:
                numbers = builder.gep(a, [builder.mul(group.index, jump)])
                vectors = builder.gep(b, [builder.mul(builder.mul(group.index, steps), index(LANES))])
                with cgutils.for_range(builder, steps) as step:
                    number = builder.gep(numbers, [builder.mul(step.index, index(of_step))])
                    line = builder.gep(vectors, [builder.mul(step.index, index(LANES))])
                    factors = [builder.load(there(line, 0, w, b_apart), align=size) for w in wide]
                    for r in range(rows):
                        one = broadcast(builder, builder.load(builder.gep(number, [index(r * of_row)])))
                        for w in wide:
                            total = builder.load(totals[r, w])
                            builder.store(builder.call(function, [one, factors[w], total]), totals[r, w])
            for (r, w), place in totals.items():
                builder.store(builder.load(place), there(c, r * LANES, w, c_apart), align=size)
            return context.get_dummy_value()

        return types.void(a, jump, b, b_apart, c, c_apart, groups, steps, onto), generate

    return add
