"""The verbs train and eval."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stl_deploy._util import allocator as _allocator
from stl_deploy._util import install
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.units import counted
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Dataset, load_dataset, whole_size
from stl_deploy.errors import InputError, ToolError, UnsupportedError
from stl_deploy.exporters.targets import format_of
from stl_deploy.pipeline.artifacts import ready
from stl_deploy.pipeline.evaluate_graph import evaluate_graph
from stl_deploy.pipeline.fast_path import announce
from stl_deploy.pipeline.read import read
from stl_deploy.pipeline.results import GraphEvaluation
from stl_deploy.runs.inputs import LabelledInput, encode_split
from stl_deploy.runs.manifest import check_network, check_unchanged
from stl_deploy.runs.source import GRAPH
from stl_deploy.training.evaluate import Evaluation
from stl_deploy.training.evaluate import evaluate as evaluate_network
from stl_deploy.training.loop import train as train_network
from stl_deploy.training.model_file import load_network
from stl_deploy.training.run_files import MODEL
from stl_deploy.training.run_folder import refuse_replacing

_BATCH = 256


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
    refuse_replacing(run_dir, resume=resume, overwrite=overwrite)
    install.require("matplotlib", *(["tensorboard"] if config.train.tensorboard else []))
    _allocator.keep_large_buffers()
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


def evaluate(run_dir: Path, *, say: Console = QUIET) -> dict[str, Any]:
    """Return accuracy, spike rates and thresholds of a run's picked weights on its test split (JSON-ready).

    Where the folder holds the graph, also the accuracy and differing spikes of the graph and of every artifact there.
    """
    network, config = load_network(run_dir)
    check_unchanged(run_dir, (MODEL,))
    announce("cpu", say)
    test = load_dataset(config.dataset).test
    result = evaluate_network(network, test, config)
    _show(result, say)
    results: dict[str, Any] = {"run": str(run_dir), "test": result.as_dict()}
    if (run_dir / "net.nir").is_file() and config.train.mode != "ann":
        artifacts = _evaluate_artifacts(run_dir, encode_split(config, test), say)
        results |= {} if artifacts is None else {"artifacts": artifacts.as_dict()}
    return results


def _evaluate_artifacts(run_dir: Path, test: LabelledInput, say: Console) -> GraphEvaluation | None:
    """Evaluate the graph and every artifact of the folder on the same samples; None for per-step labels."""
    if test.labels.ndim != 1:
        return None
    check_network(run_dir)
    net = read(run_dir)
    artifacts = []
    for path in sorted(run_dir.iterdir()):
        to = format_of(path)
        if to is None or to.name == GRAPH:
            continue
        try:
            ready(to.load(path), net.program)
        except (InputError, ToolError, UnsupportedError) as error:
            say.warn(f"{path.name} does not run, the table is without it: {error}")
        else:
            artifacts.append(path)
    say.step(f"{counted(len(artifacts), 'artifact')} and the graph on {counted(len(test.labels), 'test sample')}")
    parts = [slice(start, start + _BATCH) for start in range(0, len(test.labels), _BATCH)]
    batches = [(test.x[:, part], test.labels[part]) for part in parts]
    result = evaluate_graph(net, batches, time="first", backend=artifacts)
    for line in str(result).splitlines():
        say.say(line)
    return result


def size_sentence(data: Dataset) -> str:
    """Return the number of samples in each split, and whether that is only a part of the dataset."""
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    whole = whole_size(data.name)
    subset = "" if whole is None or sum(sizes) >= whole else f"; a subset of {data.name}, which has {whole:,}"
    return f"{sizes[0]:,} training, {sizes[1]:,} validation and {sizes[2]:,} test samples{subset}"


def _show(result: Evaluation, say: Console) -> None:
    say.say(f"test accuracy {result.accuracy:.2%} on {result.samples} samples, loss {result.loss:.4f}")
    rows = []
    for name, rate in result.rates.items():
        theta = result.thresholds.get(name)
        spread = f"{theta.min:.3f} / {theta.mean:.3f} / {theta.max:.3f}" if theta is not None else "-"
        rows.append([name, f"{rate:.4f}", spread])
    say.table(["layer", "spikes per neuron and step", "threshold min / mean / max"], rows)
