"""Measure a run's kept ANN twin on the input of a verb: one frame for each sample, as in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.energy.context import AnnTwin
from stl_deploy.errors import StlDeployError
from stl_deploy.graph.exact import input_bits
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.runs.source import TEST_INPUT
from stl_deploy.training.run_files import CONFIG, MODEL
from stl_deploy.training.run_folder import TWIN


def kept_twin(
    program: Program,
    run_dir: Path,
    input_file: Path | None,
    x: NetworkInput,
    labels: NDArray[np.int64] | None,
    say: Console,
    *,
    input_grid: int | None = None,
) -> tuple[AnnTwin | None, str]:
    """Return the kept twin's zeros and accuracy; else None, and why in one sentence ("" without a kept twin).

    Arguments as of `twin_frames`. Raises InputError for a twin of another topology.
    """
    frames, why = twin_frames(program, run_dir, input_file, x, labels, input_grid=input_grid)
    if frames is None:
        return None, why
    from stl_deploy.runs.ann_twin import measure_twin, sees_sums  # torch

    _tell(run_dir / TWIN, say)
    twin = measure_twin(program, run_dir / TWIN, *frames)
    return replace(twin, summed=sees_sums(load_config(run_dir / CONFIG))), ""


Frames = tuple[NDArray[Any], NDArray[np.int64] | None]
"""``[1, B, *shape]`` and labels ``[B]``."""


def twin_frames(
    program: Program,
    run_dir: Path,
    input_file: Path | None,
    x: NetworkInput,
    labels: NDArray[np.int64] | None,
    *,
    input_grid: int | None = None,
) -> tuple[Frames | None, str]:
    """Return the input of a run's kept ANNs; else None, and why in one sentence ("" without a kept twin).

    x: ``[T, B, *shape]``, of ``input_file`` (None: the run's own test samples), rounded if ``input_grid`` is given. The
    twin takes the source of ``x``: the image that is shown at every step, or the sum of the frames. If the run's own
    ``x`` does not determine it (drawn or timed spikes, binary event frames, rounded numbers), it is encoded anew from
    the run's data.
    """
    folder = run_dir / TWIN
    if not isinstance(x, np.ndarray) or not all((each / CONFIG).is_file() for each in (run_dir, folder)):
        return None, ""
    if not (folder / MODEL).is_file():
        return None, f"The zeros of the kept ANN twin were not measured: its training has not ended ({folder})."
    config, own = load_config(run_dir / CONFIG), input_grid is None and _is_own(run_dir, input_file)
    frame = _frame(config, program, x, own=own)
    if frame is not None:
        return (frame, labels), ""
    if not own:
        return None, (
            "The zeros of the kept ANN twin were not measured: of each sample it takes one frame, "
            f"which cannot be decided from this input (encoder {config.encoder})."
        )
    from stl_deploy.data import load_dataset  # torch
    from stl_deploy.runs.ann_twin import kept_frames

    try:
        data = load_dataset(config.dataset)
    except StlDeployError as error:
        return None, (
            "The zeros of the kept ANN twin were not measured: of each sample it takes one frame, which "
            f"{TEST_INPUT} does not hold, and the data cannot be read ({error})."
        )
    anew = kept_frames(folder, data.test, x.shape[1])
    return (anew.x, anew.labels), ""


def _tell(folder: Path, say: Console) -> None:
    from stl_deploy.pipeline.fast_path import announce  # torch

    announce("cpu", say)
    say.say(f"counting what the ANN twin in {folder} does on the same samples")


def _is_own(run_dir: Path, given: Path | None) -> bool:
    kept = run_dir / TEST_INPUT
    return given is None or (kept.is_file() and given.is_file() and kept.samefile(given))


def _frame(config: RunConfig, program: Program, x: NDArray[Any], *, own: bool) -> NDArray[Any] | None:
    """Return the twin's input for ``x``, ``[1, B, *shape]``; None if ``x`` does not determine it.

    The run's own frames of numbers that were rounded are not added up: the twin was measured on their rounded sum.
    """
    if config.encoder == "direct":
        # steps that differ were drawn or perturbed: no one of them is the image
        return x[:1] if bool((x == x[:1]).all()) else None
    if config.train.frames == "each":
        return x
    if config.encoder in ("counts", "sequence") and (not own or input_bits(program.metadata) is None):
        summed: NDArray[Any] = np.asarray(x, np.float32).sum(axis=0, keepdims=True)
        return summed
    return None
