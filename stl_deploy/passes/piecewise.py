"""Piecewise-linear functions of one number, in exact arithmetic: the normal form of a ReLU, however it is written.

Knots split the line into open intervals and points, 2K + 1 parts in order; on each the function is slope·x + offset.
Operations work part by part, after comparisons have added the knots at which their arguments cross. No knot stays
where a function goes on as before, so equal functions have equal forms.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

_BEYOND = Fraction(2) ** 128
"""No finite float32 is as large."""
_INFINITE = _BEYOND**4


class NotPiecewiseError(ValueError):
    """A result that is not piecewise linear."""


class Line(NamedTuple):
    """slope·x + offset."""

    slope: Fraction
    offset: Fraction

    def at(self, x: Fraction) -> Fraction:
        """Return the value at x."""
        return self.slope * x + self.offset


class Ramp(NamedTuple):
    """sign·min(max(gain·x + offset, 0), cap); cap None: no cap."""

    gain: Fraction
    offset: Fraction
    cap: Fraction | None
    sign: int

    def at(self, x: Fraction) -> Fraction:
        """Return the value at x."""
        height = max(self.gain * x + self.offset, Fraction(0))
        return self.sign * (height if self.cap is None else min(height, self.cap))


@dataclass(frozen=True)
class Piecewise:
    """A piecewise-linear function: its knots, ascending, and its parts, a constant at each knot."""

    knots: tuple[Fraction, ...]
    parts: tuple[Line, ...]

    def part(self, x: Fraction) -> Line:
        """Return the part at x."""
        k = bisect_left(self.knots, x)
        return self.parts[2 * k + (x in self.knots[k : k + 1])]

    @property
    def is_continuous(self) -> bool:
        """Whether both sides of each knot meet there, rounded to float32."""
        sides = (self.parts[2 * k : 2 * k + 3] for k in range(len(self.knots)))
        meets = ({np.float32(part.at(x)) for part in side} for x, side in zip(self.knots, sides, strict=True))
        return all(len(values) == 1 for values in meets)

    def ramps(self) -> tuple[list[Ramp], Fraction]:
        """Return a continuous function as a sum of ramps, the last part's first, and a constant."""
        sloped = [line for line in self.parts if line.slope]
        if not sloped:
            return [], self.parts[0].offset
        knots, lines = self.knots, self.parts[::2]
        if not knots:  # a line rises and falls from its zero
            knots, lines = (-sloped[0].offset / sloped[0].slope,), self.parts * 2
        made: list[Ramp] = []
        for left, line, right in zip((None, *knots), lines, (*knots, None), strict=True):
            if line.slope:
                rises, steep = line.slope > 0, abs(line.slope)
                start = left if left is not None and (rises or right is None) else right
                assert start is not None
                way = 1 if start == left else -1
                cap = None if left is None or right is None else steep * (right - left)
                made.insert(0, Ramp(way * steep, -way * steep * start, cap, way if rises else -way))
        first = self.part(knots[0]).at(knots[0])
        return made, first - sum(ramp.at(knots[0]) for ramp in made)

    def bounded_line(self) -> tuple[Line, tuple[Fraction, Fraction]]:
        """Return a function that rises on one part alone as its line there and its bounds."""
        sloped = [each for each in self.parts if each.slope]
        if len(sloped) != 1 or sloped[0].slope < 0 or not self.is_continuous:
            raise NotPiecewiseError
        low, high = (self.parts[k].offset if not self.parts[k].slope else None for k in (0, -1))
        return sloped[0], (-_INFINITE if low is None else low, _INFINITE if high is None else high)


def constant(value: float) -> Piecewise:
    """Return a constant; an infinite one is beyond every float."""
    if np.isnan(value):
        raise NotPiecewiseError
    return _constant(Fraction(float(value)) if np.isfinite(value) else (1 if value > 0 else -1) * _INFINITE)


NO_RAMP = Ramp(Fraction(1), Fraction(0), None, 0)
IDENTITY = Piecewise((), (Line(Fraction(1), Fraction(0)),))


def _constant(value: Fraction) -> Piecewise:
    return Piecewise((), (Line(Fraction(0), value),))


def _pointwise(rule: Callable[..., Line], *functions: Piecewise, knots: Iterable[Fraction] = ()) -> Piecewise:
    """Apply a rule of x and the lines there to each part between all knots."""
    every = {*knots, *(x for each in functions for x in each.knots)}
    merged = sorted(x for x in every if abs(x) < _BEYOND)
    inside = [merged[0] - 1 if merged else Fraction(0)]
    for x, after in zip_longest(merged, merged[1:]):
        inside += x, x + 1 if after is None else (x + after) / 2
    parts = [rule(x, *(each.part(x) for each in functions)) for x in inside]
    kept, made = [], parts[:1]
    for k, x in enumerate(merged):
        value, after = parts[2 * k + 1].at(x), parts[2 * k + 2]
        if made[-1] != after or after.at(x) != value:
            kept.append(x)
            made += Line(Fraction(0), value), after
    return Piecewise(tuple(kept), tuple(made))


def _add(a: Piecewise, b: Piecewise) -> Piecewise:
    return _pointwise(lambda x, p, q: Line(p.slope + q.slope, p.offset + q.offset), a, b)


def _product(x: Fraction, p: Line, q: Line) -> Line:
    if p.slope and q.slope:
        raise NotPiecewiseError
    return Line(p.slope * q.offset + q.slope * p.offset, p.offset * q.offset)


def _quotient(x: Fraction, p: Line, q: Line) -> Line:
    if q.slope or not q.offset:
        raise NotPiecewiseError
    return Line(p.slope / q.offset, p.offset / q.offset)


def _mul(a: Piecewise, b: Piecewise) -> Piecewise:
    return _pointwise(_product, a, b)


def _neg(a: Piecewise) -> Piecewise:
    return _mul(a, _constant(Fraction(-1)))


def _sub(a: Piecewise, b: Piecewise) -> Piecewise:
    return _add(a, _neg(b))


def _comparison(holds: Callable[[Any, Any], bool]) -> Callable[[Piecewise, Piecewise], Piecewise]:
    def compared(a: Piecewise, b: Piecewise) -> Piecewise:
        rest = _sub(a, b)
        crossings = [-part.offset / part.slope for part in rest.parts if part.slope]
        return _pointwise(lambda x, p: Line(Fraction(0), Fraction(holds(p.at(x), 0))), rest, knots=crossings)

    return compared


def _where(choice: Piecewise, a: Piecewise, b: Piecewise) -> Piecewise:
    return _pointwise(lambda x, c, p, q: p if c.offset else q, choice, a, b)


_GT, _LT, _NE = map(_comparison, (operator.gt, operator.lt, operator.ne))
_ZERO = _constant(Fraction(0))


def _max(a: Piecewise, b: Piecewise) -> Piecewise:
    return _where(_GT(a, b), a, b)


def _min(a: Piecewise, b: Piecewise) -> Piecewise:
    return _where(_LT(a, b), a, b)


def clipped(a: Piecewise, low: int, high: int) -> Piecewise:
    """Return min(max(a, low), high)."""
    return _min(_max(a, _constant(Fraction(low))), _constant(Fraction(high)))


EXACT: Mapping[str, Callable[..., Piecewise]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": lambda a, b: _pointwise(_quotient, a, b),
    "fma": lambda a, b, c: _add(_mul(a, b), c),
    "neg": _neg,
    "abs": lambda a: _max(a, _neg(a)),
    "sign": lambda a: _sub(_GT(a, _ZERO), _LT(a, _ZERO)),
    "max": _max,
    "min": _min,
    "gt": _GT,
    "ge": _comparison(operator.ge),
    "lt": _LT,
    "le": _comparison(operator.le),
    "eq": _comparison(operator.eq),
    "ne": _NE,
    "and": _mul,
    "or": _max,
    "xor": _NE,
    "not": lambda a: _sub(_constant(Fraction(1)), a),
    "where": _where,
    "cast": lambda a: a,
}
"""Operations of Cells on piecewise-linear functions of the same number; a choice is 0 or 1."""
TRUNCATED = _where(_LT(IDENTITY, _ZERO), _min(_add(IDENTITY, _constant(Fraction(1))), _ZERO), IDENTITY)
"""trunc(v) of floor(v), but where v is a negative integer."""
