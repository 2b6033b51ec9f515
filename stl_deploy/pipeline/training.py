"""The verbs train and eval."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from stl_deploy import _allocator, checkpoint
from stl_deploy.config import RunConfig
from stl_deploy.console import Console
from stl_deploy.data import load_dataset
from stl_deploy.evaluate import Evaluation
from stl_deploy.evaluate import evaluate as evaluate_network
from stl_deploy.model_file import load_network
from stl_deploy.train import train as train_network


def train(config: RunConfig, run_dir: Path, *, resume: bool = False, say: Console | None = None) -> dict[str, Any]:
    """Train one model into ``run_dir``; returns the picked epoch and its results (JSON-ready)."""
    say = say or Console(quiet=True)
    _allocator.keep_large_buffers()
    say.step(f"Training ({config.train.mode}) on {config.dataset.name}, {config.train.epochs} epochs")
    if not resume and (run_dir / checkpoint.FILE).is_file():
        say.say(f"{run_dir} holds an earlier training, which is replaced (--resume goes on from it)")
    result = train_network(config, run_dir, resume=resume, progress=say.epoch)
    say.say(
        f"epoch {result.epoch} had the lowest validation loss (accuracy {result.validation_accuracy:.2%}); "
        f"test accuracy {result.test.accuracy:.2%} on {result.test.samples} images"
    )
    quoted = shlex.quote(str(run_dir))
    say.say(f"next:  stl-deploy eval {quoted}   stl-deploy fold {quoted}")
    return {
        "run": str(run_dir),
        "epoch": result.epoch,
        "validation_accuracy": result.validation_accuracy,
        "test": result.test.as_dict(),
    }


def evaluate(run_dir: Path, *, say: Console | None = None) -> dict[str, Any]:
    """Accuracy, spike rates and thresholds of a run's picked weights on its test split (JSON-ready)."""
    say = say or Console(quiet=True)
    network, config = load_network(run_dir)
    result = evaluate_network(network, load_dataset(config.dataset).test, config)
    _show(result, say)
    return {"run": str(run_dir), "test": result.as_dict()}


def _show(result: Evaluation, say: Console) -> None:
    say.say(f"test accuracy {result.accuracy:.2%} on {result.samples} images, loss {result.loss:.4f}")
    rows = []
    for name, rate in result.rates.items():
        theta = result.thresholds.get(name)
        spread = f"{theta.min:.3f} / {theta.mean:.3f} / {theta.max:.3f}" if theta is not None else "-"
        rows.append([name, f"{rate:.4f}", spread])
    say.table(["layer", "spikes per neuron and step", "threshold min / mean / max"], rows)
