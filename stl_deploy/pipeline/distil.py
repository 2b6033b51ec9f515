"""Train a converted network to put out what its ANN does: thresholds first, then weights."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from stl_deploy.errors import DivergedError
from stl_deploy.graph.program import Program
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.pipeline.calibrate import outputs_of

What = Literal["thresholds", "weights"]
_BATCH = 64
_RATE = 3e-3
"""Adam's rate, as a share of each tensor's own size: heights of few levels are large, folded weights may be small."""
_OF_NEURONS = (".threshold", ".scale", ".offset")


def distil(program: Program, x: Tensor, wanted: Tensor, steps: int, *, what: What, epochs: int) -> Program:
    """Return the Program after training on the ANN's outputs.

    Args:
        program: A converted network, with a scale by its height behind each neuron.
        x: Samples ``[N, *shape]``.
        wanted: The ANN's outputs ``[N, *shape]``.
        steps: Steps that each sample is shown.
        what: ``thresholds``: thresholds, heights and offsets alone; ``weights``: weights and biases, too.
        epochs: Passes over the samples.

    Raises:
        DivergedError: If the loss is not finite.
    """
    module = ProgramModule(program, surrogate="triangular")
    optimiser = torch.optim.Adam(_groups(module, what))
    batches = max(1, len(x) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * batches)
    spread = wanted.var().clamp(min=torch.finfo(wanted.dtype).tiny)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for part in torch.split(order[: batches * _BATCH], _BATCH):
            loss = (outputs_of(module, x[part], steps) - wanted[part]).square().mean() / spread
            if not bool(torch.isfinite(loss)):
                raise DivergedError(f"epoch {epoch + 1}: the distance to the ANN's outputs is {float(loss)}")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            _keep_positive(module)
    return module.program()


def _groups(module: ProgramModule, what: What) -> list[dict[str, Any]]:
    """Return a group for each tensor that is trained, with its rate; an offset has the size of its thresholds."""
    named = dict(module.named_parameters())
    groups = []
    for name, value in named.items():
        if what == "weights" or name.endswith(_OF_NEURONS):
            # an offset starts at 0, and a rate of its own size would never move it
            size = named.get(name.replace(".offset", ".threshold"), value)
            groups.append({"params": [value], "lr": _RATE * float(size.detach().square().mean().sqrt())})
    return groups


@torch.no_grad()
def _keep_positive(module: ProgramModule) -> None:
    """Hold thresholds above 0, below which a neuron would fire without input."""
    for name, value in module.named_parameters():
        if name.endswith(".threshold"):
            value.clamp_(min=1e-6)
