"""Encode a run's test samples as network input, on the fold's grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import MAX_ARRAY_BYTES
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import DatasetConfig, RunConfig
from stl_deploy.data import Split, encode, input_coding, load_dataset, sample_shape
from stl_deploy.data.events import MOST
from stl_deploy.data.sensors import MOST as SPIKES_OF_SENSORS
from stl_deploy.data.sensors import SENSOR_ENCODERS
from stl_deploy.errors import InputError
from stl_deploy.graph.exact import round_to_grid
from stl_deploy.graph.program import Floats, InputCoding
from stl_deploy.training.seeds import generator

IMAGE_BITS = 8
"""Images whose levels are no power of two (0…255) are rounded to multiples of 2^-8: half a level at most."""


@dataclass(frozen=True)
class InputSpec:
    """The input's coding, and the grid of its values (multiples of 2^-fraction_bits, at most ``bound``)."""

    coding: InputCoding
    fraction_bits: int
    bound: float = 1.0


def split_spec(config: RunConfig, split: Split) -> InputSpec:
    """Return `input_spec` of a split; own data with their own grid decide it: 0 and 1, integers or real numbers."""
    coding = input_coding(config.encoder)
    if split.grid is None or coding == "spikes":
        return input_spec(config, split.levels)
    bits, bound = split.grid.fraction_bits, split.grid.bound
    if bits == 0:
        only_events = bound == 1 and bool((split.pixels >= 0).all())
        return InputSpec("spikes" if only_events else "graded", 0, bound)
    return InputSpec("analog", bits, bound)


@dataclass(frozen=True, eq=False)
class LabelledInput:
    """``x`` ``[T, B, *shape]`` float32 on the grid, and labels ``[B]``."""

    x: Floats
    labels: NDArray[np.int64]


def input_spec(config: RunConfig, levels: int) -> InputSpec:
    """Return the grid of a dataset with pixel values 0…levels: exact for powers of two, else `IMAGE_BITS`."""
    coding = input_coding(config.encoder)
    if coding == "spikes":
        return InputSpec(coding, 0)
    if coding == "graded":
        return InputSpec(coding, 0, bound=float(SPIKES_OF_SENSORS if config.encoder in SENSOR_ENCODERS else MOST))
    exact = levels & (levels - 1) == 0 and config.dataset.input_grid is None
    return InputSpec(coding, levels.bit_length() - 1 if exact else analog_bits(config.dataset))


def analog_bits(config: DatasetConfig) -> int:
    """Return fraction bits of real-valued input: the configuration's, else `IMAGE_BITS`."""
    return IMAGE_BITS if config.input_grid is None else config.input_grid


def encode_split(config: RunConfig, split: Split, count: int | None = None) -> LabelledInput:
    """Encode ``count`` samples of a split (None: all; see `Split.part`) as the configuration says, on the grid.

    Bernoulli draws come from the run's seed, the same at every call.
    """
    samples = len(split) if count is None else min(count, len(split))
    size = 4 * config.time_steps * samples * math.prod(sample_shape(config.dataset))
    if size > MAX_ARRAY_BYTES:
        raise InputError(
            f"expected arrays of at most {MAX_ARRAY_BYTES // 2**30} GiB; found {size / 2**30:.0f} GiB ({samples} "
            f"samples of {config.time_steps} steps); use fewer steps (dataset.T)"
        )
    part = split.part(count)
    draws = generator(config.train.seed, "evaluation")
    x = encode(split.images(part), config.time_steps, config.encoder, draws).numpy()
    spec = split_spec(config, split)
    return LabelledInput(round_to_grid(x, spec.fraction_bits), split.labels[part].numpy())


def training_input(run_dir: Path, count: int) -> Floats:
    """Encode ``count`` training samples of a run folder: calibration data for quantisation."""
    config = load_config(run_dir / "config.yaml")
    return encode_split(config, load_dataset(config.dataset).train, count).x
