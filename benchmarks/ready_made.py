"""Make a ready-made model from a trained run and its ANN twin: ``python -m benchmarks.ready_made NAME RUN TWIN …``.

Weights are rounded to 8 bits with a scale for each output, both networks are tested again with the rounded ones, and
the card says what came out.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util.files import sha256, write_json, write_text
from stl_deploy._util.tensor_file import read_tensors, write_tensors
from stl_deploy.config.load import dump_config, load_config
from stl_deploy.data import load_dataset
from stl_deploy.training import pretrained
from stl_deploy.training.evaluate import evaluate
from stl_deploy.training.model_file import load_network
from stl_deploy.training.pretrained.unpacking import SCALE, by_output, unpacked
from stl_deploy.training.run_files import METRICS, MODEL

FOLDER = Path(pretrained.__file__).parent
_Z = 1.959964
"""Of a 95 % interval."""
_TINY = torch.finfo(torch.float32).tiny
_MOST = 127


def wilson(correct: int, samples: int) -> pretrained.Accuracy:
    """The share of correct samples with its 95 % Wilson score interval."""
    share, spread = correct / samples, _Z**2 / samples
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / samples + spread / (4 * samples))
    return pretrained.Accuracy(correct, samples, round(middle - half, 4), round(middle + half, 4))


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Synaptic weights ``[outputs, ...]`` as int8 and scales ``[outputs]``, kept as ``NAME.scale``; others as given."""
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.dim() > 1:
            scale = tensor.flatten(1).abs().amax(1).clamp(min=_TINY) / _MOST
            small[name] = (tensor / by_output(scale, tensor)).round().to(torch.int8)
            small[name + SCALE] = scale
        else:
            small[name] = tensor
    return small


def _rounded(run: Path, target: Path, config_file: str, weights: str) -> tuple[pretrained.Accuracy, int]:
    """Write the run's weights in 8 bits and what they reach on the test split."""
    network, config = load_network(run)
    tensors, facts = read_tensors(run / MODEL)
    small = packed(tensors)
    network.load_state_dict(unpacked(small))
    test = evaluate(network, load_dataset(config.dataset).test, config)
    portable = config.model_copy(update={"dataset": config.dataset.model_copy(update={"data_dir": None})})
    write_text(target / config_file, dump_config(portable))
    write_tensors(target / weights, small, {**facts, "test": test.as_dict(), "rounded": "8 bits"})
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return wilson(round(test.accuracy * test.samples), test.samples), parameters


def make(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the model's folder; returns its card."""
    target = FOLDER / arguments.name
    target.mkdir(exist_ok=True)
    accuracy, parameters = _rounded(arguments.run, target, "config.yaml", "model.safetensors")
    twin_accuracy, _ = _rounded(arguments.twin, target, "twin.yaml", "twin.safetensors")
    write_text(target / METRICS, (arguments.run / METRICS).read_text(encoding="utf-8"))
    config = load_config(target / "config.yaml")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    card = pretrained.Card(
        name=arguments.name,
        dataset=config.dataset.name,
        data=arguments.data,
        licence=arguments.licence,
        share_alike=arguments.share_alike,
        command=arguments.command,
        twin_command=arguments.twin_command or f"{arguments.command} --mode ann",
        seed=config.train.seed,
        commit=arguments.commit or head,
        time_steps=config.time_steps,
        parameters=parameters,
        accuracy=accuracy,
        twin_accuracy=twin_accuracy,
        sha256={name: sha256(target / name) for name in ("model.safetensors", "twin.safetensors")},
    )
    write_json(target / "card.json", card.as_dict())
    return card.as_dict()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("twin", type=Path)
    parser.add_argument("--data", required=True, help="what the data are and where they come from")
    parser.add_argument("--licence", required=True, help="of the data")
    parser.add_argument("--share-alike", action="store_true")
    parser.add_argument("--command", required=True, help="that trained the network")
    parser.add_argument("--twin-command", help="that trained the twin; default: the network's, with --mode ann")
    parser.add_argument("--commit", help="of the code that trained it; default: HEAD")
    torch.manual_seed(0)
    print(json.dumps(make(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
