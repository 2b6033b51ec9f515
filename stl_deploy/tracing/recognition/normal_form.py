"""Write elementwise arithmetic in its normal form: a polynomial over the values that it reads.

Equal arithmetic has equal normal forms, however the code is written: ``v + (x - v) / 2`` and ``0.5 * v + 0.5 * x`` are
½·v + ½·x, and ``where(s, 0, v)`` is v - s·v of a spike s, for which s·s is s. Coefficients are float64 arrays, so forms
are equal over the real numbers; whether a neuron's own order of float32 operations gives the same bits is found by
running both (`trial`). What is no polynomial (a bound, a rounding, an exponential) is a symbol of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stl_deploy.graph.cell import OPERATIONS, Dtype
from stl_deploy.graph.program import Doubles
from stl_deploy.tracing.recognition.lowering import Call, NoFormError, lower
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref, Signal

_CANCELLED = 1e-12
"""A sum that is smaller than this, relative to its terms, is 0: ``1 - 0.5 * 2`` of rounded numbers."""
_SLACK = 1e-9
"""Relative distance by which the ends of a range may lie beyond a bound: their rounding."""
DEEPEST = 2
"""Number of earlier steps that a neuron's arithmetic may read."""
_MOST_TERMS = 64
_MOST_BITS = 4
_COMPARES = ("gt", "ge", "lt", "le", "eq", "ne")


@dataclass(eq=False)
class Symbol:
    """A value of which polynomials are made. binary: it is 0 or 1.

    op, args: the operation that made it, if it is no polynomial of what that reads.
    """

    binary: bool = False
    op: str = ""
    args: tuple[Polynomial, ...] = ()


Ranges = Mapping[Symbol, tuple[Doubles, Doubles]]
"""The least and the largest value of symbols."""
_BINARY = np.zeros(()), np.ones(())
Monomial = frozenset[tuple[Symbol, int]]
"""Symbols and their powers; empty: 1."""
_ONE: Monomial = frozenset()


class Polynomial:
    """A sum of monomials with float64 arrays as coefficients, which broadcast to one another."""

    def __init__(self, terms: Mapping[Monomial, Doubles]) -> None:
        if len(terms) > _MOST_TERMS:
            raise NoFormError(f"expected at most {_MOST_TERMS} terms; found more")
        self.terms = {monomial: factor for monomial, factor in terms.items() if factor.any()}

    @classmethod
    def number(cls, value: Any) -> Polynomial:
        """Return a constant."""
        return cls({_ONE: np.asarray(value, np.float64)})

    @classmethod
    def of(cls, symbol: Symbol) -> Polynomial:
        """Return a symbol as a polynomial."""
        return cls({frozenset({(symbol, 1)}): np.ones(())})

    @property
    def symbols(self) -> set[Symbol]:
        """The symbols that it is made of."""
        return {symbol for monomial in self.terms for symbol, _ in monomial}

    @property
    def constant(self) -> Doubles | None:
        """Its value, if it has no symbols."""
        return None if self.symbols else self[()]

    def __getitem__(self, symbols: tuple[Symbol, ...]) -> Doubles:
        """Return the coefficient of a product of symbols."""
        return self.terms.get(frozenset(Counter(symbols).items()), np.zeros(()))

    def __add__(self, other: Polynomial) -> Polynomial:
        terms = dict(self.terms)
        for monomial, factor in other.terms.items():
            known = terms.get(monomial)
            terms[monomial] = factor if known is None else _sum(known, factor)
        return Polynomial(terms)

    def __mul__(self, other: Polynomial) -> Polynomial:
        out = Polynomial({})
        for (one, a), (two, b) in product(self.terms.items(), other.terms.items()):
            out += Polynomial({_times(one, two): a * b})
        return out

    def __neg__(self) -> Polynomial:
        return self.scaled(-1)

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + -other

    def scaled(self, factor: Any) -> Polynomial:
        """Return it multiplied by a number or array."""
        return Polynomial({monomial: known * factor for monomial, known in self.terms.items()})

    def at(self, values: Mapping[Symbol, Polynomial]) -> Polynomial:
        """Return it with polynomials in the place of symbols."""
        out = Polynomial({})
        for monomial, factor in self.terms.items():
            rest = frozenset((symbol, power) for symbol, power in monomial if symbol not in values)
            term = Polynomial({rest: factor})
            for symbol, power in monomial - rest:
                for _ in range(power):
                    term *= values[symbol]
            out += term
        return out

    def is_affine(self, symbols: Set[Symbol]) -> bool:
        """Return whether it is a sum of these symbols, each times a number, and a number."""
        return self.symbols <= symbols and all(sum(power for _, power in monomial) < 2 for monomial in self.terms)

    def ends(self, ranges: Ranges) -> tuple[Doubles, Doubles] | None:
        """Return numbers between which it is, from those of its symbols; None if one of these has none."""
        low = high = np.zeros(())
        for monomial, factor in self.terms.items():
            least = most = factor
            for symbol, power in monomial:
                ends = ranges.get(symbol, _BINARY if symbol.binary else None)
                if ends is None or power > 1:
                    return None
                corners = [least * ends[0], least * ends[1], most * ends[0], most * ends[1]]
                least, most = reduce(np.minimum, corners), reduce(np.maximum, corners)
            low, high = low + least, high + most
        return low, high

    def is_binary(self) -> bool:
        """Return whether it is 0 or 1, whatever its binary symbols are."""
        rows = self.table()
        return rows is not None and all(bool(np.isin(value, (0, 1)).all()) for _, value in rows)

    def table(self) -> list[tuple[dict[Symbol, int], Doubles]] | None:
        """Return its value for each assignment of its symbols, if these are binary and few."""
        names = list(self.symbols)
        if len(names) > _MOST_BITS or not all(symbol.binary for symbol in names):
            return None
        rows = [dict(zip(names, bits, strict=True)) for bits in product((0, 1), repeat=len(names))]
        return [(row, self._of_bits(row)) for row in rows]

    def _of_bits(self, bits: Mapping[Symbol, int]) -> Doubles:
        held = [factor for monomial, factor in self.terms.items() if all(bits[symbol] for symbol, _ in monomial)]
        return np.asarray(reduce(_sum, held, np.zeros(())))


def number_of(tensor: Tensor) -> Polynomial:
    """Return a constant tensor as a polynomial."""
    return Polynomial.number(tensor.detach().double().numpy())


def _sum(one: Doubles, other: Doubles) -> Doubles:
    total = one + other
    return np.where(np.abs(total) <= _CANCELLED * (np.abs(one) + np.abs(other)), 0.0, total)


def _times(one: Monomial, other: Monomial) -> Monomial:
    powers = Counter(dict(one)) + Counter(dict(other))
    return frozenset((symbol, 1 if symbol.binary else power) for symbol, power in powers.items())


Known = Callable[[Signal, int], Polynomial | None]
"""Gives the polynomial of a signal some steps ago, where arithmetic is not to be followed further."""


class NormalForm:
    """Normal forms of signals; raises NoFormError for one that is neither known nor elementwise arithmetic.

    ranges: of symbols, so that bounds beyond them are left out. unbounded: leaves out all bounds that are constants.
    """

    def __init__(self, known: Known, ranges: Ranges | None = None, *, unbounded: bool = False) -> None:
        self._known, self._ranges, self._unbounded = known, ranges or {}, unbounded
        self._forms: dict[tuple[Signal, int], Polynomial] = {}
        self._values: list[Polynomial] = []

    def __call__(self, signal: Signal, lag: int) -> Polynomial:
        """Return the form of a signal ``lag`` steps ago."""
        key = (signal, lag)
        if key not in self._forms:
            known = self._known(signal, lag)
            self._forms[key] = self._made(signal, lag) if known is None else known
        return self._forms[key]

    def _made(self, signal: Signal, lag: int) -> Polynomial:
        node = signal.node
        if lag > DEEPEST or not node.pointwise:
            raise NoFormError(f"'{node.called}' is no elementwise arithmetic")

        def read(item: Ref | Node) -> str:
            if isinstance(item, Ref):
                return self._keep(self(item.signal, item.lag + lag))
            return self._keep(number_of(item.value))

        call = Call(self, node, tuple(signal.args), signal.kwargs or {}, read, _type_of(node), _type_of)
        return self._values[int(lower(call))]

    def _keep(self, value: Polynomial) -> str:
        self._values.append(value)
        return str(len(self._values) - 1)

    def constant(self, value: Any, dtype: Dtype) -> str:
        """Return the name of a constant (see `Writer`)."""
        del dtype  # numbers stay as they are written
        return self._keep(Polynomial.number(value))

    def op(self, op: str, *args: str, dtype: Dtype) -> str:
        """Apply an operation of `OPERATIONS`; return the name of its value (see `Writer`)."""
        return self._keep(self._apply(op, [self._values[int(arg)] for arg in args], dtype))

    def _apply(self, op: str, args: list[Polynomial], dtype: Dtype) -> Polynomial:
        constants = [arg.constant for arg in args]
        if all(constant is not None for constant in constants):
            return _of_constants(op, constants)
        made = _arithmetic(op, args)
        if made is None and op in _COMPARES:
            made = _of_table(op, args[0] - args[1])
        if made is None and op in ("max", "min"):
            made = self._bounded(op, args, constants)
        return Polynomial.of(Symbol(dtype == "bool", op, tuple(args))) if made is None else made

    def _bounded(self, op: str, args: list[Polynomial], constants: list[Doubles | None]) -> Polynomial | None:
        """Return what a bound leaves of a value, where it is always, or never, reached."""
        if all(arg.is_binary() for arg in args):
            return _arithmetic("or" if op == "max" else "and", args)
        for value, bound in zip(args, reversed(constants), strict=True):
            if bound is not None and (self._unbounded or self._is_within(op, value, bound)):
                return value
        return None

    def _is_within(self, op: str, value: Polynomial, bound: Doubles) -> bool:
        ends = value.ends(self._ranges)
        if ends is None:
            return False
        slack = _SLACK * np.maximum(np.abs(bound), np.maximum(*map(np.abs, ends)))
        return bool((ends[0] >= bound - slack).all() if op == "max" else (ends[1] <= bound + slack).all())


def _of_constants(op: str, values: list[Any]) -> Polynomial:
    kind = OPERATIONS[op]
    if kind.takes in ("bool", "choice"):
        values = [values[0] != 0, *values[1:]] if kind.takes == "choice" else [value != 0 for value in values]
    with np.errstate(all="ignore"):
        return Polynomial.number(kind.run(*values))


def _arithmetic(op: str, args: list[Polynomial]) -> Polynomial | None:
    """Return the polynomial of an operation, if it has one."""
    one = Polynomial.number(1)
    a, *rest = args
    b = rest[0] if rest else one
    match op:
        case "cast":
            return a
        case "add":
            return a + b
        case "sub":
            return a - b
        case "neg":
            return -a
        case "mul" | "and":
            return a * b
        case "fma":
            return a * b + rest[1]
        case "not":
            return one - a
        case "or":
            return a + b - a * b
        case "xor":
            return a + b - (a * b).scaled(2)
        case "where":
            return a * b + (one - a) * rest[1]
        case "div" if b.constant is not None and b.constant.all():
            return a.scaled(1 / b.constant)
        case "abs" | "sign" if a.is_binary():
            return a
    return None


def _of_table(op: str, difference: Polynomial) -> Polynomial | None:
    """Return a comparison of binary values with a number as a polynomial of these: ``s > 0.5`` is s."""
    rows = difference.table()
    if rows is None:
        return None
    out = Polynomial({})
    for bits, value in rows:
        term = Polynomial.number(OPERATIONS[op].run(value, 0.0))
        for symbol, bit in bits.items():
            term *= Polynomial.of(symbol) if bit else Polynomial.number(1) - Polynomial.of(symbol)
        out += term
    return out


def _type_of(node: Node) -> Dtype:
    """Return the kind of number that a node computes with, for one whose precision does not matter."""
    if node.dtype == torch.bool:
        return "bool"
    return "float32" if node.dtype.is_floating_point else "int64"
