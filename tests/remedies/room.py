"""What remedies are tried on: small networks, their files, and input that fits them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
import yaml
from torch import nn

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy._util.console import Console
from stl_deploy.exporters.nir.file import write_nir
from tests.conftest import TINY
from tests.graph.nets import chain, lif

SMALL = ("train.epochs=1", "dataset.T=2", "dataset.test_fraction=0.85")


def model() -> nn.Module:
    """Two layers that spike, with a threshold for each neuron."""
    torch.manual_seed(0)
    hidden, out = stl.LIF((6,), threshold=0.3), stl.LIF((3,), threshold=0.2)
    with torch.no_grad():
        for name, parameter in hidden.named_parameters():
            if "threshold" in name:
                parameter += torch.linspace(0, 0.2, 6)
    return nn.Sequential(nn.Linear(4, 6), hidden, nn.Linear(6, 3), out)


class Room:
    """A folder with networks of spikes and of real input; each is made once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._count = folder, 0

    def new(self, name: str) -> Path:
        """A path that nothing stands at."""
        self._count += 1
        return self.folder / f"{self._count}_{name}"

    @cached_property
    def spikes(self) -> torch.Tensor:
        return (torch.rand(8, 6, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()

    @cached_property
    def reals(self) -> torch.Tensor:
        return torch.rand(8, 6, 4, generator=torch.Generator().manual_seed(1))

    @cached_property
    def net(self) -> stl.SpikingGraph:
        return stl.capture(model(), self.spikes)

    @cached_property
    def analog(self) -> stl.SpikingGraph:
        return stl.capture(model(), self.reals)

    @cached_property
    def pooled(self) -> stl.SpikingGraph:
        """Spikes of pictures, averaged before the next weights."""
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 2, 3, padding=1), stl.LIF((2, 4, 4), threshold=0.1), nn.AvgPool2d(2), nn.Flatten()]
        layers += [nn.Linear(8, 3), stl.LIF((3,), threshold=0.2)]
        return stl.capture(AtEachStep(layers), (torch.rand(6, 3, 1, 4, 4) < 0.5).float(), verify=False)

    @cached_property
    def file(self) -> Path:
        self.net.export(self.folder / "net.nir")
        return self.folder / "net.nir"

    @cached_property
    def input(self) -> Path:
        np.savez(self.folder / "x.npz", x=self.spikes.numpy())
        return self.folder / "x.npz"

    @cached_property
    def analog_file(self) -> Path:
        self.analog.export(self.folder / "analog.nir")
        return self.folder / "analog.nir"

    @cached_property
    def foreign(self) -> Path:
        """A file that does not say what it means, nor who wrote it."""
        write_nir(chain((3,), nir.Linear(np.eye(3, dtype=np.float32)), lif((3,))), self.folder / "foreign.nir")
        return self.folder / "foreign.nir"

    @cached_property
    def c(self) -> Path:
        self.net.export(self.folder / "c", to="c")
        return self.folder / "c"

    @cached_property
    def config(self) -> Path:
        """A configuration's file that trains in well under a second."""
        path = self.folder / "tiny.yaml"
        path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
        return path

    @cached_property
    def run(self) -> Path:
        """A finished run folder, without an ANN twin."""
        verbs.run(verbs.configure(str(self.config), SMALL), self.folder / "run", lava=False, twin=False)
        return self.folder / "run"

    def made(self, name: str, make: Callable[..., Path]) -> Path:
        """A folder that is made once."""
        path = self.folder / name
        return path if path.exists() else make(output=path)

    def copy(self, *missing: str) -> Path:
        """A copy of the finished run without some of its files."""
        path = self.new("run")
        shutil.copytree(self.run, path)
        for name in missing:
            (path / name).unlink()
        return path


def said(verb: Callable[[Console], Any]) -> str:
    """What a verb prints."""
    stream = StringIO()
    verb(Console(stream=stream, verbose=True))
    return stream.getvalue()


class AtEachStep(nn.Module):
    """Layers of pictures and neurons, one after the other."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x) if isinstance(layer, stl.LIF) else layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x


@dataclass(frozen=True)
class Remedy:
    """A sentence with a remedy: how it is reached, what it names in each interface, and what following it does.

    of: the functions that phrase it. fail: raises an error, or returns what is printed. follow: must go through.
    """

    of: str
    fail: Callable[[Room], Any]
    python: str
    cli: str
    follow: Callable[[Room], Any]
