"""A short training of a network that is already good, with the loss and the data of its own run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Dataset, Split, encode
from stl_deploy.nn.network import Network
from stl_deploy.training.divergence import check_finite, diverged
from stl_deploy.training.evaluate import classification_loss, evaluate
from stl_deploy.training.seeds import generator


def fine_tune(
    network: Network,
    config: RunConfig,
    data: Dataset,
    *,
    epochs: int,
    lr: float,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> int:
    """Train ``network`` in place with Adam, at the run's precision, and a learning rate that falls to 0 as a cosine.

    The weights of the epoch of lowest validation loss are kept, the start (epoch 0) among them; returns that epoch.
    Raises DivergedError if the loss or a weight becomes NaN or infinite.
    """
    optimiser = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    lowest, picked = evaluate(network, data.validation, config).loss, 0
    best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    for epoch in range(epochs):
        start = time.perf_counter()
        loss, accuracy = _epoch(network, optimiser, config, data.train, epoch)
        check_finite(network, epoch)
        found = evaluate(network, data.validation, config)
        if found.loss < lowest:
            lowest, picked = found.loss, epoch + 1
            best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if progress is not None:
            progress(
                {
                    "epoch": epoch + 1,
                    "epochs": epochs,
                    "loss": loss,
                    "train_accuracy": accuracy,
                    "validation_loss": found.loss,
                    "validation_accuracy": found.accuracy,
                    "lr": schedule.get_last_lr()[0],
                    "rates": found.rates,
                    "thresholds": found.as_dict()["thresholds"],
                    "seconds": time.perf_counter() - start,
                }
            )
        schedule.step()
    network.load_state_dict(best)
    return picked


def _epoch(
    network: Network, optimiser: torch.optim.Optimizer, config: RunConfig, split: Split, epoch: int
) -> tuple[float, float]:
    """One pass over the split; mean loss and accuracy on the way."""
    draws = generator(config.train.seed, "encoder", epoch)
    order = torch.randperm(len(split), generator=generator(config.train.seed, "order", epoch))
    device = next(network.parameters()).device
    network.train()
    total, correct = 0.0, 0
    for index in order.tensor_split(math.ceil(len(split) / config.train.batch_size)):
        x = encode(split.images(index), config.time_steps, config.encoder, draws).to(device)
        labels = split.labels[index].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bfloat16"):
            outputs = network(x)
        scores = network.scores(outputs)
        loss = classification_loss(outputs, scores, labels, config.train)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise diverged(network, epoch, x)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += value * len(index)
        correct += int((scores.argmax(1) == labels).sum())
    network.eval()
    return total / len(split), correct / len(split)
