"""Train a model into a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stl_deploy._util import install
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.system import keep_large_buffers, require_address_space
from stl_deploy._util.units import counted
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Dataset, whole_size
from stl_deploy.pipeline.fast_path import announce
from stl_deploy.training.loop import train as train_network
from stl_deploy.training.run_folder import refuse_replacing


def train(
    config: RunConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    data: Dataset | None = None,
    opened: Callable[[], None] | None = None,
    say: Console = QUIET,
) -> dict[str, Any]:
    """Train one model into ``run_dir``; return the picked epoch and its results (JSON-ready).

    data, opened: as of `stl_deploy.training.loop.train`.
    Raises ToolError if a package is missing, InputError if the folder holds a training and neither resume (go on with
    it) nor overwrite is set.
    """
    done = fit(config, run_dir, resume=resume, overwrite=overwrite, data=data, opened=opened, say=say)
    quoted = shlex.quote(str(run_dir))
    further = f"stl-deploy energy RUN --ann {quoted}" if config.train.mode == "ann" else f"stl-deploy fold {quoted}"
    say.say(f"next:  stl-deploy eval {quoted}   {further}")
    return done


def fit(
    config: RunConfig,
    run_dir: Path,
    *,
    resume: bool,
    overwrite: bool,
    say: Console,
    data: Dataset | None = None,
    opened: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train as `train` does, without a message on the next step."""
    require_address_space()
    refuse_replacing(run_dir, resume=resume, overwrite=overwrite)
    install.require("matplotlib")
    keep_large_buffers()
    say.step(f"Training ({config.train.mode}) on {config.dataset.name}, {counted(config.train.epochs, 'epoch')}")
    sizes: dict[str, int | None] = {}

    def loaded(data: Dataset) -> None:
        sizes.update(train=len(data.train), validation=len(data.validation), test=len(data.test))
        say.say(size_sentence(data))
        sizes["whole"] = whole_size(data.name)
        announce(config.train.device, say)

    with say.training() as batch:
        result = train_network(
            config, run_dir, resume=resume, data=data, progress=say.epoch, loaded=loaded, opened=opened, batch=batch
        )
    say.say(
        f"epoch {result.epoch} had the lowest validation loss (accuracy {result.validation_accuracy:.2%}); "
        f"test accuracy {result.test.accuracy:.2%} on {result.test.samples} samples"
    )
    if dead := [name for name, share in result.test.silent.items() if share == 1]:
        layers = f"{', '.join(dead)} on any test sample"
        if config.train.mode == "ann":
            say.warn(f"no output above 0 in {layers}; scale the input up")
        else:
            say.warn(f"no spike in {layers}; lower neuron.threshold, or scale the input up")
    return {
        "run": str(run_dir),
        "dataset": config.dataset.name,
        "samples": sizes,
        "epoch": result.epoch,
        "validation_accuracy": result.validation_accuracy,
        "test": result.test.as_dict(),
    }


def size_sentence(data: Dataset) -> str:
    """Return the number of samples in each split, and whether that is only a part of the dataset."""
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    whole = whole_size(data.name)
    subset = "" if whole is None or sum(sizes) >= whole else f"; a subset of {data.name}, which has {whole:,}"
    return f"{sizes[0]:,} training, {sizes[1]:,} validation and {sizes[2]:,} test samples{subset}"
