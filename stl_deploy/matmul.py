"""How torch multiplies float32 matrices on this processor: speed and error of each setting, measured.

What ``medium`` means differs by processor: another library at the same accuracy on some, bfloat16 on others. So it is
never chosen without being asked for (``train.matmul``), and `measure` says what asking would bring.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch

from stl_deploy.config import MatmulPrecision

_SIZE = 768
_ROUNDS = 5
_SAME_ERROR = 2.0
"""An error of at most so many times that of ``highest`` is rounding of the same kind."""


@dataclass(frozen=True)
class Measured:
    """One setting: median seconds of a product, and its largest error as a share of the largest result."""

    precision: MatmulPrecision
    seconds: float
    error: float

    def as_dict(self) -> dict[str, Any]:
        """JSON twin."""
        return asdict(self)


@contextmanager
def matmul_precision(precision: MatmulPrecision) -> Iterator[None]:
    """torch's float32 products at ``precision`` inside, as before outside."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def measure() -> tuple[Measured, ...]:
    """Every setting on the CPU, in turn, on one pair of random matrices (well under a second)."""
    draws = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_SIZE, _SIZE, generator=draws) for _ in range(2))
    exact = a.double() @ b.double()
    seconds: dict[MatmulPrecision, list[float]] = {name: [] for name in get_args(MatmulPrecision)}
    errors: dict[MatmulPrecision, float] = {}
    for turn in range(_ROUNDS + 1):
        for name, taken in seconds.items():
            with matmul_precision(name):
                start = time.perf_counter()
                product = a @ b
                if turn:
                    taken.append(time.perf_counter() - start)
            errors[name] = float((product.double() - exact).abs().max() / exact.abs().max())
    return tuple(Measured(name, statistics.median(taken), errors[name]) for name, taken in seconds.items())


def bfloat16_gain() -> float:
    """How many times as fast bfloat16 operands multiply as float32 ones on the CPU; medians, in turn, one pair."""
    draws = torch.Generator().manual_seed(0)
    wide = torch.randn(2, _SIZE, _SIZE, generator=draws)
    operands = {torch.float32: wide.unbind(), torch.bfloat16: wide.bfloat16().unbind()}
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in operands}
    for turn in range(_ROUNDS + 1):
        for dtype, (a, b) in operands.items():
            start = time.perf_counter()
            a @ b
            if turn:
                seconds[dtype].append(time.perf_counter() - start)
    return statistics.median(seconds[torch.float32]) / statistics.median(seconds[torch.bfloat16])


def advice(found: tuple[Measured, ...]) -> str:
    """What the measurement says about ``train.matmul``, in a sentence."""
    base = next(one for one in found if one.precision == "highest")
    same = [one for one in found if one.error <= _SAME_ERROR * base.error]
    best = min(same, key=lambda one: one.seconds)
    lossy = [one.precision for one in found if one not in same]
    warning = f"; less accurate here: {', '.join(lossy)}" if lossy else ""
    if best.seconds > 0.9 * base.seconds:
        return f"matrix products: 'highest' is as fast as any of the same accuracy{warning}"
    gain = base.seconds / best.seconds
    return f"matrix products: --set train.matmul={best.precision} is {gain:.1f}x as fast at the same accuracy{warning}"
