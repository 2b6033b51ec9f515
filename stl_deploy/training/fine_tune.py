"""Fine-tune a trained network with the loss and the data of its own run."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch

from stl_deploy._util.training_progress import Batch
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Dataset
from stl_deploy.nn.network import Network
from stl_deploy.training.checkpoint import State, read_checkpoint, write_checkpoint
from stl_deploy.training.evaluate import evaluate
from stl_deploy.training.loop import Progress, no_batches, train_epoch, weights_of


def fine_tune(
    network: Network,
    config: RunConfig,
    data: Dataset,
    *,
    epochs: int,
    lr: float,
    checkpoints: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    batch: Batch = no_batches,
) -> int:
    """Train ``network`` in place, epoch by epoch as `train` does, with a learning rate that falls to 0 as a cosine.

    checkpoints: the folder that keeps the state after each epoch, and that ``resume`` goes on from.
    progress: called with each epoch's record; batch: see `stl_deploy._util.training_progress`.
    The weights of the epoch of lowest validation loss are kept, the start (epoch 0) among them; returns that epoch.
    Every epoch shows all steps. Raises DivergedError if the loss or a weight becomes NaN or infinite, and as
    `read_checkpoint` does.
    """
    config = config.with_values(train={"one_step_epochs": 0, "lr": lr})
    optimiser = torch.optim.Adam([{"params": list(network.parameters()), "multiplier": 1.0}], lr=lr)
    start = evaluate(network, data.validation, config).loss
    state = State(network, optimiser, 0, [], weights_of(network), 0)
    if resume and checkpoints is not None:
        read_checkpoint(checkpoints, state, config, start_counts=True)
    while state.epoch < epochs:
        rate = lr * (1 + math.cos(math.pi * state.epoch / epochs)) / 2
        record = train_epoch(state, config, data, partial(_constant, rate), epochs, start=start, batch=batch)
        if checkpoints is not None:
            write_checkpoint(checkpoints, state, config)
        if progress is not None:
            progress(record)
    network.load_state_dict(state.best)
    network.eval()
    return state.best_epoch


def _constant(rate: float, _part: float) -> float:
    return rate
