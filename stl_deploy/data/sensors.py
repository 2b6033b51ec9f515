"""Signals of sensors as spike counts 0 to 15, as event-driven chips take them: axes of motion, bands of sound.

x = np.load("motion.npy")                      # [N, T, axes], real numbers
counts = encode_axes(x, unit=0.2)              # [N, T, 2 * axes], uint8

In a configuration the same is ``dataset: {encoder: axes, sensor: {unit: 0.2}}``. Both are models of what a chip's own
front end puts out, not its bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.config.schema import DatasetConfig, SensorConfig
from stl_deploy.errors import ConfigError, InputError

MOST = 15
"""Spikes of a channel in one step at most."""
SENSOR_ENCODERS = ("axes", "bands")
_HIGHEST = 0.4
"""The default upper edge of the bands, in parts of the sampling rate."""

Counts = NDArray[np.uint8]


def encode_axes(x: NDArray[Any], unit: float, *, most: int = MOST) -> Counts:
    """Encode changes of values as spike counts: one spike for each ``unit`` of change.

    Args:
        x: Signal ``[..., T, axes]``. Changes count from the first step's level.
        unit: Change per spike, in the unit of x.
        most: Maximum spikes of a channel in a step; the excess follows in later steps.

    Returns:
        ``[..., T, 2·axes]``: channel 2a counts the rises of axis a, channel 2a + 1 its falls. At every step, the first
        value plus unit·(rises − falls) is within one unit of the signal, unless ``most`` limited the spikes.

    Raises:
        InputError: For an invalid unit or signal.

    Example:
        >>> encode_axes(np.array([[0.0], [0.25], [-0.1]]), 0.1).tolist()
        [[0, 0], [2, 0], [0, 3]]
    """
    signal = _signal(x, 2, "[..., T, axes]")
    _require_unit(unit, most)
    steps = np.moveaxis(signal, -2, 0)
    level, counts = steps[0].copy(), np.zeros((*signal.shape, 2), np.uint8)
    for now, to in zip(steps, np.moveaxis(counts, -3, 0), strict=True):
        moved = np.clip(np.trunc((now - level) / unit), -most, most)
        # by what was sent, not to the signal: what `most` cut off follows in later steps
        level += moved * unit
        to[..., 0], to[..., 1] = np.maximum(moved, 0), np.maximum(-moved, 0)
    return counts.reshape(*signal.shape[:-1], -1)


def encode_bands(
    x: NDArray[Any],
    *,
    rate: float,
    steps: int,
    unit: float,
    bands: int = 16,
    low: float = 100.0,
    high: float | None = None,
    most: int = MOST,
) -> Counts:
    """Encode sound as spike counts per frequency band: band-pass filter, rectify, integrate and fire.

    Args:
        x: Waveform ``[..., samples]``; samples beyond a multiple of ``steps`` are dropped.
        rate: Samples per second.
        steps: T, the number of steps that the waveform is divided into.
        unit: Mean rectified signal of a step per spike; the remainder carries over to later steps.
        bands: Channels: second-order Butterworth filters between logarithmically spaced edges.
        low: Lowest edge in Hz.
        high: Highest edge in Hz, below half of the rate (default: 0.4 of the rate).
        most: Maximum spikes of a channel in a step; the excess is lost, as in a full counter.

    Returns:
        ``[..., T, bands]``.

    Raises:
        InputError: For invalid edges, unit or signal.
    """
    from scipy.signal import butter, sosfilt

    signal = _signal(x, 1, "[..., samples]")
    _require_unit(unit, most)
    high = _HIGHEST * rate if high is None else high
    if not 0 < low < high < rate / 2:
        raise InputError(f"expected bands within 0 and {rate / 2:g} Hz, half of the rate; found {low:g} to {high:g} Hz")
    length = signal.shape[-1] // steps if steps >= 1 else 0
    if bands < 1 or not length:
        raise InputError(
            f"expected at least one step, one band and one sample a step; found {steps}, {bands} and "
            f"{signal.shape[-1]} samples"
        )
    edges = np.geomspace(low, high, bands + 1)
    counts = np.empty((*signal.shape[:-1], steps, bands), np.uint8)
    for band in range(bands):
        sections = butter(1, edges[band : band + 2], "bandpass", fs=rate, output="sos")
        passed = np.abs(sosfilt(sections, signal)[..., : length * steps])
        drive = passed.reshape(*signal.shape[:-1], steps, length).mean(-1) / unit
        left = np.zeros(signal.shape[:-1])
        for step in range(steps):
            total = left + drive[..., step]
            whole = np.floor(total)
            counts[..., step, band], left = np.minimum(whole, most), total - whole
    return counts


def unit_missing(config: DatasetConfig) -> bool:
    """Return whether the encoder needs a unit that is not given."""
    return config.encoder in SENSOR_ENCODERS and (config.sensor is None or config.sensor.unit is None)


def sensed(x: NDArray[Any], config: DatasetConfig, where: str) -> NDArray[Any]:
    """Encode samples ``[N, ...]`` by the configuration's encoder of sensors; unchanged for another encoder.

    Raises ConfigError where ``dataset.sensor`` or the samples' axes do not fit the encoder.
    """
    if config.encoder not in SENSOR_ENCODERS:
        return x
    sensor, axes = config.sensor or SensorConfig(), "[N, T, axes]" if config.encoder == "axes" else "[N, samples]"
    if x.ndim != axes.count(",") + 1:
        raise ConfigError(f"{where}: expected samples {axes} for the encoder {config.encoder!r}; found {list(x.shape)}")
    if config.encoder == "bands" and sensor.rate is None:
        raise ConfigError("key 'dataset.sensor.rate': expected samples a second for the encoder 'bands'; found none")
    if sensor.unit is None:
        proposed = _proposed_unit(x, config, sensor)
        raise ConfigError(
            f"key 'dataset.sensor.unit': expected what one spike stands for; found none; {proposed:.3g} makes the "
            f"greatest count of {where} {MOST}"
        )
    return _counted(x, config, sensor, sensor.unit)


def _counted(x: NDArray[Any], config: DatasetConfig, sensor: SensorConfig, unit: float) -> Counts:
    if config.encoder == "axes":
        return encode_axes(x, unit)
    assert sensor.rate is not None
    return encode_bands(
        x, rate=sensor.rate, steps=config.T, unit=unit, bands=sensor.bands, low=sensor.low, high=sensor.high
    )


def _proposed_unit(x: NDArray[Any], config: DatasetConfig, sensor: SensorConfig) -> float:
    """Return a unit at which `MOST` limits no count."""
    if config.encoder == "axes":
        return float(np.abs(np.diff(x.astype(np.float64), axis=1)).max(initial=0)) / MOST or 1.0
    unit = float(np.abs(x.astype(np.float64)).max()) or 1.0
    for _ in range(64):
        if _counted(x, config, sensor, unit / 2).max() >= MOST:
            break
        unit /= 2
    return unit


def _signal(x: NDArray[Any], axes: int, form: str) -> NDArray[np.float64]:
    if x.ndim < axes or 0 in x.shape or x.dtype.kind not in "fiub":
        raise InputError(f"expected a signal {form}; found {x.dtype} {list(x.shape)}")
    signal = x.astype(np.float64)
    if not np.isfinite(signal).all():
        raise InputError("expected finite numbers in the signal; found NaN or infinity")
    return signal


def _require_unit(unit: float, most: int) -> None:
    if not (np.isfinite(unit) and unit > 0) or not 1 <= most <= 255:
        raise InputError(f"expected a unit above 0 and counts of at most 1 to 255; found {unit!r} and {most!r}")
