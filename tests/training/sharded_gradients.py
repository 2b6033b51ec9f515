"""Run by torchrun, or alone: the gradients of every step of an epoch in float64, saved as ``<place>.pt``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from stl_deploy._util import processes
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import load_dataset
from stl_deploy.nn.network import Network
from stl_deploy.training import distributed
from stl_deploy.training import loop as train
from stl_deploy.training.checkpoint import State
from stl_deploy.training.sync_batchnorm import share_norms

Step = dict[str, torch.Tensor]


def gradients(config: RunConfig) -> list[Step]:
    """Of every step, and last the running statistics."""
    data = load_dataset(config.dataset)
    torch.manual_seed(0)
    network = Network(config, data.input_shape, data.classes).double()
    share_norms(network)
    steps: list[Step] = []

    class Keep(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            steps.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})

    groups = [{"params": list(network.parameters()), "multiplier": 1.0}]
    state = State(network, Keep(groups, lr=0.1), 0, [], {}, 0)
    train.one_pass(state, config, data.train, lambda _: 0.1, lambda *_: None)
    return [*steps, {name: buffer.clone() for name, buffer in network.named_buffers()}]


def in_doubles() -> None:
    """Feed networks float64."""
    encode = train.encode
    train.encode = lambda *given: encode(*given).double()  # type: ignore[assignment]


if __name__ == "__main__":
    in_doubles()
    folder = Path(sys.argv[1])
    with distributed.together():
        found = {path.stem: gradients(load_config(path)) for path in sorted(folder.glob("*.yaml"))}
        torch.save(found, folder / f"{processes.world_size()}-{processes.rank()}.pt")
