"""Make windows of heartbeats with one label each: ``python -m benchmarks.ecg_windows QTDB_DIR OUT.npz``.

The QT database has a label for each step, which an ANN twin of one pass does not decide. Each window is 64 steps of a
recording's level-crossing spikes ``[64, 4]``, labelled with the wave of its last step; every recording gives the same
number of windows, evenly apart. Windows of one recording stay in one split (``group``).
Beside it stands a configuration, OUT.yaml: ``stl-deploy run OUT.yaml -o RUN``, ``stl-deploy optimise RUN``.
``--recurrent UNITS`` trains an ANN of one layer of recurrent ReLUs, too, which sees every step and decides at the last
one, and prints its accuracy on the test windows for three seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stl_deploy._util.files import write_text
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.own import qtdb_ecg
from stl_deploy.data.own.arrays import from_arrays

STEPS, EACH = 64, 8
"""Of a window; windows of a recording."""
_CONFIG = """dataset: {{name: npz, path: {path}, encoder: spikes, validation_fraction: 0.1}}
network:
  - {{kind: linear, features: 64}}
  - {{kind: norm}}
  - {{kind: lif}}
  - {{kind: linear, features: 64}}
  - {{kind: norm}}
  - {{kind: lif}}
  - {{kind: linear, features: 60}}
  - {{kind: lif}}
  - {{kind: vote, population: 10}}
neuron: {{beta: 0.9, learn_beta: true}}
train: {{epochs: 20, batch_size: 64, lr: 0.004, schedule: one_cycle}}
"""


def windows(x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Cut sequences ``[N, T, channels]`` with labels ``[N, T]`` into spikes ``[N * EACH, STEPS, channels]``."""
    ends = np.linspace(STEPS, x.shape[1], EACH).astype(int)
    cut = np.stack([x[:, end - STEPS : end] for end in ends], 1) != 0
    return cut.reshape(-1, STEPS, x.shape[2]), y[:, ends - 1].reshape(-1)


def write(folder: Path, target: Path) -> None:
    """Write windows of both parts of the QT database as own arrays."""
    raw = qtdb_ecg.load(DatasetConfig(name="qtdb_ecg", path=str(folder), encoder="sequence"))
    assert raw.test is not None
    assert raw.test_labels is not None
    (x, y), (x_test, y_test) = windows(raw.train, raw.train_labels), windows(raw.test, raw.test_labels)
    group = np.repeat(np.arange(len(raw.train)), EACH)
    data = from_arrays(x, y, x_test=x_test, y_test=y_test, group=group, classes=("P", "PQ", "QR", "RS", "ST", "TP"))
    data.write(target)
    print(f"{target}: {len(y):,} training and {len(y_test):,} test windows of {STEPS} steps")


class Recurrent(nn.Module):
    """h[t] = ReLU(W x[t] + R h[t-1]); the last step is read."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.layer = nn.RNN(4, units, nonlinearity="relu", batch_first=True)
        self.readout = nn.Linear(units, 6)
        nn.init.eye_(self.layer.weight_hh_l0)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of x ``[B, T, channels]``."""
        scores: Tensor = self.readout(self.layer(x)[0][:, -1])
        return scores


def recurrent_ann(target: Path, units: int, seed: int, epochs: int = 15) -> float:
    """Train on the training windows; return the accuracy on the test windows."""
    data = np.load(target)
    x, x_test = (torch.from_numpy(data[name]).float() for name in ("x", "x_test"))
    y, y_test = (torch.from_numpy(data[name]).long() for name in ("y", "y_test"))
    torch.manual_seed(seed)
    model, batches = Recurrent(units), len(x) // 64
    optimiser = torch.optim.Adam(model.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: batches * 64].split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return (model(x_test).argmax(-1) == y_test).double().mean().item()


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="QTDB_DIR")
    parser.add_argument("target", type=Path, metavar="OUT.npz")
    parser.add_argument("--recurrent", type=int, metavar="UNITS")
    arguments = parser.parse_args(words)
    write(arguments.folder, arguments.target)
    config = _CONFIG.format(path=json.dumps(str(arguments.target.absolute())))
    write_text(arguments.target.with_suffix(".yaml"), config)
    if arguments.recurrent:
        accuracies = [recurrent_ann(arguments.target, arguments.recurrent, seed) for seed in range(3)]
        print(f"recurrent ANN of {arguments.recurrent} units: {', '.join(f'{each:.2%}' for each in accuracies)}")


if __name__ == "__main__":
    main()
