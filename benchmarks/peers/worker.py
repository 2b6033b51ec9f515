"""Runs in a peer's environment, which has torch and the peer; prints JSON on its last line.

python -m benchmarks.peers.worker PEER WORKLOAD ROUNDS THREADS      seconds of its forms and of the floor, in turn
python -m benchmarks.peers.worker PEER WORKLOAD --peak FORM         bytes that two training steps need on top
python -m benchmarks.peers.worker PEER WORKLOAD --card DEVICE STEPS ROUNDS     seconds and bytes on a card, over STEPS
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import on_card
from benchmarks.workloads import (
    TINY,
    WORKLOADS,
    Stack,
    Workload,
    authors,
    floor,
    inference,
    interleaved,
    peak_of,
    training_step,
)

Forms = dict[str, Callable[[Workload], Stack]]


def forms_of(peer: str) -> tuple[Forms, Any]:
    """A peer's forms beside the floor, and its module."""
    module = importlib.import_module(f"benchmarks.peers.{peer}_forms")
    return {"floor": floor, **module.FORMS}, module


def training(workload: Workload, model: Stack) -> Callable[[], None]:
    """A training step with torch's fused Adam."""
    return training_step(workload, model, model.rates, fused_adam=True)


def measure(peer: str, workload: Workload, rounds: int) -> dict[str, Any]:
    """Median seconds of each form, and how far its spikes are those of the authors' algorithm."""
    forms, module = forms_of(peer)
    models = {name: make(workload) for name, make in forms.items()}
    train = {name: training(workload, model) for name, model in models.items()}
    infer = {name: inference(workload, model) for name, model in models.items()}
    agreement = {name: agreement_of(make, workload) for name, make in forms.items() if name != "floor"}
    return {
        "version": module.VERSION,
        "torch": torch.__version__,
        "notes": module.NOTES,
        "agreement": agreement,
        "seconds": {"train": interleaved(train, rounds), "infer": interleaved(infer, rounds)},
    }


def measure_on_card(peer: str, workload: Workload, device: str, rounds: int) -> dict[str, Any]:
    """Rows of `benchmarks.on_card` of the floor and each form."""
    forms, module = forms_of(peer)
    rows = on_card.measure(workload, {name: _entry(make, workload) for name, make in forms.items()}, device, rounds)
    return {"version": module.VERSION, "torch": torch.__version__, "notes": module.NOTES, "rows": rows}


def _entry(make: Callable[[Workload], Stack], workload: Workload) -> on_card.Contestant:
    return lambda: make(workload), on_card.rates_of


@torch.no_grad()
def agreement_of(make: Callable[[Workload], Stack], workload: Workload) -> float:
    """Share of all spikes of the authors' algorithm, from the same weights in evaluation mode, that are found as well.

    A form that fires elsewhere, too, is held against its own spikes instead: the smaller share counts.
    """
    theirs, ours = (_spikes(model, workload) for model in (make(workload), authors(workload)))
    both = sum(float((a * b).sum()) for a, b in zip(theirs, ours, strict=True))
    most = max(sum(float(layer.sum()) for layer in spikes) for spikes in (theirs, ours))
    return both / most


def _spikes(model: Stack, workload: Workload) -> list[Tensor]:
    """Of each population on 4 samples, ``[T, B, *shape]``; inputs are three times as strong, so that layers fire."""
    recorded: list[list[Tensor]] = [[] for _ in model.neurons]
    for neuron, kept in zip(model.neurons, recorded, strict=True):
        neuron.register_forward_hook(_keep(kept))
    model.eval()(3 * workload.data()[0][:, :4])
    joined = [torch.stack(kept) if model.form == "steps" else kept[0] for kept in recorded]
    return [layer.transpose(0, 1) if model.form == "batch first" else layer for layer in joined]


def _keep(kept: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
    return lambda _module, _inputs, output: kept.append(output)


def main(arguments: Sequence[str]) -> None:
    """As the module says."""
    peer, workload = arguments[0], WORKLOADS[arguments[1]]
    if arguments[2] == "--peak":
        forms, _ = forms_of(peer)
        step, warm_up = (training(work, forms[arguments[3]](work)) for work in (workload, TINY))
        print(json.dumps(peak_of(step, warm_up)))
        return
    if arguments[2] == "--card":
        device, steps, rounds = arguments[3], int(arguments[4]), int(arguments[5])
        print(json.dumps(measure_on_card(peer, replace(workload, steps=steps), device, rounds)))
        return
    torch.set_num_threads(int(arguments[3]))
    print(json.dumps(measure(peer, workload, int(arguments[2]))))


if __name__ == "__main__":
    main(sys.argv[1:])
