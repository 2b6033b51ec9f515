"""Evaluate a network: accuracy, spike rates, thresholds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from stl_deploy._util import processes
from stl_deploy._util.json_twin import JsonTwin
from stl_deploy.config.schema import RunConfig, TrainConfig
from stl_deploy.data import Split, encode
from stl_deploy.nn.network import Network
from stl_deploy.training import distributed
from stl_deploy.training.matmul_precision import matmul_precision
from stl_deploy.training.seeds import generator


@dataclass(frozen=True)
class ThresholdRange:
    """Least, mean and greatest threshold of a layer (each distinct threshold counted once)."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class Evaluation(JsonTwin):
    """Accuracy in [0, 1], mean loss, spikes per neuron per step by layer, and thresholds by layer.

    silent, saturated: share of a layer's neurons that never, and that always fired, over all samples and steps.
    In mode ``ann`` the rate is the share of ReLUs that put out more than 0.
    """

    accuracy: float
    loss: float
    samples: int
    rates: dict[str, float]
    thresholds: dict[str, ThresholdRange]
    silent: dict[str, float]
    saturated: dict[str, float]


_STEPS_AT_ONCE = 64
"""Above, batches are smaller, to bound memory."""


@torch.no_grad()
@matmul_precision("highest")
def evaluate(network: Network, split: Split, config: RunConfig, *, batch_size: int = 256) -> Evaluation:
    """Run ``network`` in evaluation mode over a split; its training mode is left as it was.

    Where several processes train, the batches are dealt out among them and all get the same result.
    Bernoulli input is drawn from the run's seed, the same at every call.
    """
    draws = generator(config.train.seed, "evaluation")
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    rates = Rates(network)
    correct, loss = 0.0, 0.0
    batch_size = max(1, min(batch_size, batch_size * _STEPS_AT_ONCE // config.time_steps))
    for number, index in enumerate(torch.split(torch.arange(len(split)), batch_size)):
        x = encode(split.images(index), config.time_steps, config.encoder, draws).to(device)
        if number % processes.world_size() != processes.rank():
            continue
        labels = split.labels[index].to(device)
        outputs = network(x, rates.observe)
        scores = network.scores(outputs)
        correct += float(right(outputs, network.decide(outputs), labels))
        loss += float(classification_loss(outputs, scores, labels, config.train)) * len(index)
    network.train(was_training)
    rates.gather()
    correct, loss = distributed.total(torch.tensor([correct, loss], dtype=torch.float64)).tolist()
    return Evaluation(
        accuracy=correct / len(split),
        loss=loss / len(split),
        samples=len(split),
        rates=rates.means(),
        thresholds=threshold_ranges(network),
        silent=rates.shares(0.0),
        saturated=rates.shares(1.0),
    )


def classification_loss(outputs: Tensor, scores: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """Return the loss of a network's outputs ``[T, B, classes]`` and their scores ``[B, classes]``.

    ``mse`` of the scores to the one-hot labels (the paper), ``ce`` of scores·ce_scale, or ``tet``: cross-entropy of
    outputs·ce_scale, averaged over the steps (see `TrainConfig`).
    Labels of each step, ``[B, T]``, are held against that step's outputs, whatever decides otherwise.
    """
    smoothing = config.label_smoothing
    if labels.dim() == 2:
        outputs, scores, labels = outputs.flatten(0, 1)[None], outputs.flatten(0, 1), labels.T.flatten()
    if config.loss == "tet":
        steps = outputs.flatten(0, 1) * config.ce_scale
        return functional.cross_entropy(steps, labels.repeat(len(outputs)), label_smoothing=smoothing)
    if config.loss == "ce":
        return functional.cross_entropy(scores * config.ce_scale, labels, label_smoothing=smoothing)
    wanted = functional.one_hot(labels, scores.shape[1]).to(scores.dtype)
    return functional.mse_loss(scores, wanted * (1 - smoothing) + smoothing / scores.shape[1])


def right(outputs: Tensor, decided: Tensor, labels: Tensor) -> Tensor:
    """Return the number of correct samples ``[B]``; labels per step, ``[B, T]``, count by the share of steps."""
    if labels.dim() == 2:
        return (labels == outputs.argmax(2).T).double().mean(1).sum()
    return (decided == labels).sum()


def threshold_ranges(network: Network) -> dict[str, ThresholdRange]:
    """Return the range of each LIF layer's effective thresholds."""
    return {
        name: ThresholdRange(float(theta.min()), float(theta.mean()), float(theta.max()))
        for name, theta in network.thresholds().items()
    }


class Rates:
    """Count how often each neuron was active."""

    def __init__(self, network: Network) -> None:
        self._shapes = {name: network.shapes[name] for name in network.activations}
        self._active: dict[str, Tensor] = {}
        self._slots: defaultdict[str, int] = defaultdict(int)

    def observe(self, name: str, output: Tensor) -> None:
        """Count a layer's output ``[T, B, *shape]``."""
        if name in self._shapes:
            active = (output != 0).sum((0, 1))
            self._active[name] = active + self._active[name] if name in self._active else active
            self._slots[name] += output.shape[0] * output.shape[1]

    def gather(self) -> None:
        """Add up the counts of all processes."""
        for name, shape in self._shapes.items():
            active = self._active[name] if name in self._active else torch.zeros(shape, dtype=torch.int64)
            self._active[name] = distributed.total(active.cpu())
            self._slots[name] = int(distributed.total(torch.tensor(self._slots[name])))

    def means(self) -> dict[str, float]:
        """Return spikes per neuron and step, by layer."""
        return {name: int(active.sum()) / (self._slots[name] * active.numel()) for name, active in self._active.items()}

    def shares(self, rate: float) -> dict[str, float]:
        """Return the share of each layer's neurons with exactly that rate."""
        return {
            name: int((active == rate * self._slots[name]).sum()) / active.numel()
            for name, active in self._active.items()
        }
