"""Count the rooms (packages, and folders) that an array passes through, and how often it comes back to one.

A walk is the sequence of calls that are given an array, a tensor or a Program. A step that repeats one between the same
two rooms is counted once, so that loops over layers and steps do not count. A return is a step into a room that the
walk has been in before.

    python -m benchmarks.walks [digits] [export] [energy]
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
PRODUCT = ("stl_deploy", "exporters", "energy")
ARGUMENTS = 6
"""Arguments of a call that are looked at."""


class Walk:
    """Rooms in the order of their first entry, and the steps between them; depth: parts of a path that count."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self.rooms: dict[str, None] = {}
        self.steps: dict[tuple[str, str], bool] = {}
        self._here = ""
        self._room_of: dict[str, str] = {}

    @property
    def returns(self) -> int:
        """Steps into a room that the walk had been in."""
        return sum(self.steps.values())

    def called(self, frame: FrameType) -> None:
        """Take a step where a call enters another room and is given an array."""
        file = frame.f_code.co_filename
        room = self._room_of.get(file)
        if room is None:
            room = self._room_of[file] = _room(file, self._depth)
        if not room or room == self._here or not _carries(frame):
            return
        if self._here:
            self.steps.setdefault((self._here, room), room in self.rooms)
        self.rooms[room] = None
        self._here = room


def follow(call: Callable[[], object]) -> tuple[Walk, Walk]:
    """Make the call; return its walks through packages and through folders."""
    walks = Walk(2), Walk(9)

    def called(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            for walk in walks:
                walk.called(frame)

    threading.setprofile(called)
    sys.setprofile(called)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return walks


def _room(file: str, depth: int) -> str:
    path = Path(file)
    if not path.is_relative_to(ROOT):
        return ""
    folder = path.relative_to(ROOT).parent
    if not folder.parts or folder.parts[0] not in PRODUCT:
        return ""
    return "/".join(folder.parts[: depth if folder.parts[0] != "energy" else depth - 1])


def _carries(frame: FrameType) -> bool:
    code = frame.f_code
    for name in code.co_varnames[: min(ARGUMENTS, code.co_argcount + code.co_kwonlyargcount)]:
        value = frame.f_locals.get(name)
        kind = type(value).__name__
        if kind in ("ndarray", "Tensor", "Program", "SpikingGraph"):
            return True
    return False


def _network() -> Any:
    import torch

    import stl_deploy as stl

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 12), stl.LIF((12,)), torch.nn.Linear(12, 4), stl.LIF((4,)))
    x = 4 * np.random.default_rng(0).random((8, 4, 16), np.float32)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layers(x)
            return out

    return stl.capture(Net(), torch.from_numpy(x))


def walk_export() -> tuple[Walk, Walk]:
    """Follow a captured network into an ONNX file."""
    net = _network()
    with TemporaryDirectory() as folder:
        return follow(lambda: net.export(Path(folder) / "net.onnx"))


def walk_energy() -> tuple[Walk, Walk]:
    """Follow a captured network to its joules."""
    net = _network()
    return follow(lambda: net.energy(net.sample))


def walk_digits() -> tuple[Walk, Walk]:
    """Follow one epoch of `run digits`, from data to report."""
    from stl_deploy.cli import main

    with TemporaryDirectory() as folder:
        given = ["run", "digits", "-o", f"{folder}/digits", "--set", "train.epochs=1", "--no-lava", "-q"]

        def call() -> None:
            with suppress(SystemExit):
                main(given)

        return follow(call)


WALKS = {"digits": walk_digits, "export": walk_export, "energy": walk_energy}


def main() -> None:
    """Print rooms and returns of the walks named."""
    for name in sys.argv[1:] or WALKS:
        for rooms, walk in zip(("packages", "folders"), WALKS[name](), strict=True):
            print(f"{name}: {len(walk.rooms)} {rooms}, {walk.returns} returns: {' > '.join(walk.rooms)}")


if __name__ == "__main__":
    main()
