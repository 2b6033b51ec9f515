"""Measure speed and error of torch's float32 matrix products on this processor, for each setting.

What ``medium`` means differs by processor: float32 products of another library on some, faster, with a few times the
rounding error; bfloat16 on others. So `settle` measures before it takes anything but ``highest``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import get_args

import torch

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy.config.schema import MatmulChoice, MatmulPrecision

_SIZE = 768
_ROUNDS = 5
_SAME_KIND = 8.0
"""Another order of summation changes the error by a small factor; operands as two bfloat16s each make it 25 times as
large, TF32's 800, bfloat16's 6,000."""
_WORTH = 1.5
"""A setting must be so many times as fast as ``highest`` to be chosen over it. Processors where one is worth it show
twice the speed, others up to 1.2 times: between the two, chance would decide how a seed's training rounds."""


@dataclass(frozen=True)
class Measured(JsonTwin):
    """One setting: least seconds of a product, and its largest error as a share of the largest result."""

    precision: MatmulPrecision
    seconds: float
    error: float

    def as_accurate_as(self, base: Measured) -> bool:
        """Return whether the error is rounding of the same kind as that of ``base``, not of shortened operands."""
        return self.error <= _SAME_KIND * base.error


@contextmanager
def matmul_precision(precision: MatmulPrecision) -> Iterator[None]:
    """Set torch's float32 products to ``precision`` inside, and restore the setting outside.

    ``highest`` holds for a CUDA card's convolutions, too, which torch computes in TF32 by default.
    """
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure() -> tuple[Measured, ...]:
    """Measure every setting on one CPU thread, in turn, on one pair of random matrices (well under a second).

    On several, other work on the machine would decide: the libraries behind the settings wait for threads differently.
    """
    draws = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_SIZE, _SIZE, generator=draws) for _ in range(2))
    exact = a.double() @ b.double()
    seconds: dict[MatmulPrecision, list[float]] = {name: [] for name in get_args(MatmulPrecision)}
    errors: dict[MatmulPrecision, float] = {}
    for turn in range(_ROUNDS + 1):
        for name, taken in seconds.items():
            with matmul_precision(name), _one_thread():
                start = time.perf_counter()
                product = a @ b
                if turn:
                    taken.append(time.perf_counter() - start)
            errors[name] = float((product.double() - exact).abs().max() / exact.abs().max())
    return tuple(Measured(name, min(taken), errors[name]) for name, taken in seconds.items())


def fastest(settings: Iterable[Measured]) -> Measured:
    """Return the fastest setting with ``highest``'s kind of error; ``highest`` unless another is clearly faster."""
    base, *others = sorted(settings, key=lambda setting: setting.precision != "highest")
    accurate = (setting for setting in others if setting.as_accurate_as(base))
    best = min(accurate, key=lambda setting: setting.seconds, default=base)
    return best if base.seconds >= _WORTH * best.seconds else base


def settle(asked: MatmulChoice, before: MatmulPrecision | None = None, *, device: str = "cpu") -> MatmulPrecision:
    """Resolve ``train.matmul`` on this machine; ``auto`` keeps the setting ``before`` if it is accurate here, too.

    The machine is measured once in a process, and not at all unless ``auto`` is asked for. On a CUDA card ``auto`` is
    ``highest``: the other settings are TF32 there.
    """
    if asked != "auto":
        return asked
    if device == "cuda":
        return "highest"
    settings = {setting.precision: setting for setting in measured_once()}
    if before is not None and settings[before].as_accurate_as(settings["highest"]):
        return before
    return fastest(settings.values()).precision


@cache
def measured_once() -> tuple[Measured, ...]:
    """Return `measure`, cached per process."""
    return measure()


def advice(settings: tuple[Measured, ...]) -> str:
    """Return the measurement as a sentence."""
    base = next(setting for setting in settings if setting.precision == "highest")
    best = fastest(settings)
    lossy = [setting.precision for setting in settings if not setting.as_accurate_as(base)]
    warning = f"; less accurate here: {', '.join(lossy)}" if lossy else ""
    if best is base:
        return f"matrix products: none of the accuracy of 'highest' is {_WORTH} times as fast{warning}"
    return (
        f"matrix products: training takes '{best.precision}', {base.seconds / best.seconds:.1f}x as fast as 'highest' "
        f"here (error {best.error:.1e} against {base.error:.1e}: rounding of float32 sums){warning}"
    )
