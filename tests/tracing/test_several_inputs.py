"""Modules of several inputs: each is an input of the graph, which computes what the module does on fresh ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError, InputError
from stl_deploy.graph.program import Conv, Input, Linear
from stl_deploy.tracing import Time
from stl_deploy.verbs.capturing import capture as capture_file


class Both(nn.Module):
    """An image through a convolution, and features through weights, into the same neurons."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(3, 8)
        self.lif, self.out = stl.LIF((8,), threshold=0.4), nn.Linear(8, 4)
        self.last = stl.LIF((4,), threshold=0.1)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        maps = self.conv(image.flatten(0, 1)).flatten(1).unflatten(0, image.shape[:2])
        return self.last(self.out(self.lif(maps + self.fc(features))))


class OfDict(Both):
    """The same, of one dict."""

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(inputs["image"], inputs["features"])


class BatchFirst(Both):
    """The same, of inputs ``[B, T, ...]``."""

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        return super().forward(image.transpose(0, 1), features.transpose(0, 1))


class Stepped(nn.Module):
    """One step of two inputs, with the potential in the caller's hands."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, 8), nn.Linear(3, 8)

    def forward(self, x: Tensor, y: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        drive = self.a(x) + self.b(y)
        v = 0.9 * (torch.zeros_like(drive) if v is None else v) + drive
        spikes = (v > 0.5).float()
        return spikes, v - 0.5 * spikes


class Looping(Stepped):
    """Its own loop over time, on the concatenated inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        weight = torch.cat([self.a.weight, self.b.weight], 1)
        v, spikes = torch.zeros(len(x), 8), []
        for _ in range(5):
            v = 0.9 * v + torch.cat([x, y], -1) @ weight.T
            spikes.append((v > 0.5).float())
            v = v - 0.5 * spikes[-1]
        return torch.stack(spikes)


def _inputs(seed: int, time: Time, *shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    leading = {"second": (3, 5), "inside": (3,)}.get(time, (5, 3))
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(*leading, *shape, generator=generator) * 2 for shape in shapes)


CASES: dict[str, tuple[type[nn.Module], Time, bool]] = {
    "arguments": (Both, "first", False),
    "arguments by name": (Both, "first", True),
    "one dict": (OfDict, "first", True),
    "batch first": (BatchFirst, "second", False),
    "step by step": (Stepped, "step", False),
    "its own loop": (Looping, "inside", False),
}


def _given(kind: type[nn.Module], time: Time, named: bool, seed: int) -> Any:
    if issubclass(kind, Stepped):
        return _inputs(seed, time, (5,), (3,))
    parts = _inputs(seed, time, (1, 4, 4), (3,))
    return {"features": parts[1], "image": parts[0]} if named else parts


def _of_module(model: nn.Module, time: Time, x: Any) -> Tensor:
    if time == "step":
        v, outputs = None, []
        for parts in zip(*x, strict=True):
            spikes, v = model(*parts, v)
            outputs.append(spikes)
        return torch.stack(outputs)
    made: Tensor = model(x) if isinstance(model, OfDict) else model(**x) if isinstance(x, dict) else model(*x)
    return made


@pytest.mark.parametrize(("kind", "time", "named"), CASES.values(), ids=CASES)
def test_each_input_is_one_of_the_graph(kind: type[nn.Module], time: Time, named: bool) -> None:
    model = kind().eval()
    net = stl.capture(model, _given(kind, time, named, 0), time=time)
    fresh = _given(kind, time, named, 1)
    assert len(net.program.inputs) == 2
    assert net.proof is not None
    assert net.proof.end_to_end["differing"] == 0
    expected = _of_module(model, time, fresh).detach().numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(net.simulate(fresh).y, expected)


def test_inputs_keep_their_shapes_and_the_layers_read_them_alone() -> None:
    net = stl.capture(Both(), _given(Both, "first", False, 0))
    readers = {node.name: [type(reader) for reader in net.program.readers[node.name]] for node in net.program.inputs}
    assert {node.name: node.shape for node in net.program.inputs} == {"image": (1, 4, 4), "features": (3,)}
    assert readers == {"image": [Conv], "features": [Linear]}


def test_every_target_takes_them_or_refuses_by_node(tmp_path: Path) -> None:
    net = stl.capture(Both(), _given(Both, "first", False, 0))
    for name in ("net.nir", "net.onnx", "net.program"):
        net.export(tmp_path / name)
    read = stl.read(tmp_path / "net.nir")
    fresh = dict(
        zip(("image", "features"), (part.numpy() for part in _inputs(2, "first", (1, 4, 4), (3,))), strict=True)
    )
    np.testing.assert_array_equal(read.simulate(fresh).y, net.simulate(fresh).y)
    assert read.energy(fresh).as_dict()["totals"] == net.energy(fresh).as_dict()["totals"]
    refused = {f.target for f in net.check().findings if f.severity == "error"}
    assert refused >= {"c", "netx", "verilog"}


def test_an_evaluation_of_several_inputs_is_refused() -> None:
    net = stl.capture(Both(), _given(Both, "first", False, 0))
    with pytest.raises(InputError, match="expected a network of one input; found 2; simulate it with one array"):
        net.evaluate([(_given(Both, "first", False, 0), torch.zeros(3, dtype=torch.long))])


def test_an_input_with_a_layers_name_gets_another() -> None:
    class Named(Stepped):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
            return ((self.a(a) + self.b(b)) > 0.5).float()

    x = _inputs(0, "first", (5,), (3,))
    net = stl.capture(Named(), {"a": x[0], "b": x[1]})
    assert {node.name for node in net.program.of(Input)} == {"a_input", "b_input"}
    np.testing.assert_array_equal(net.simulate({"a": x[0], "b": x[1]}).y, Named()(*x).numpy())


class Counting(Stepped):
    """As tutorials of snnTorch write it: forward takes the number of steps, and flags."""

    def forward(self, x: Tensor, steps: int, scale: float = 1.0, keep: bool = True) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        v, spikes, potentials = torch.zeros(len(x), 8), [], []
        for _ in range(steps):
            v = 0.9 * v + scale * self.a(x)
            spikes.append((v > 0.5).float())
            v = v - 0.5 * spikes[-1] if keep else v
            potentials.append(v)
        return torch.stack(spikes), torch.stack(potentials)


class ByPlace(Counting):
    """The same, with arguments that have no names."""

    def forward(self, x: Tensor, steps: int, scale: float = 1.0, /) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x, steps, scale)


PLAIN = {
    "in a tuple": lambda x: (x, 6, 2.0),
    "in a dict": lambda x: {"x": x, "steps": 6, "scale": 2.0},
    "in arrays, as a file holds them": lambda x: {"x": x, "steps": np.array(6), "scale": np.array(2.0)},
}


@pytest.mark.parametrize("model", [Counting, ByPlace])
@pytest.mark.parametrize("given", PLAIN.values(), ids=PLAIN)
def test_arguments_that_are_no_tensors_are_the_same_in_every_call(given: Any, model: type[nn.Module]) -> None:
    (x,) = _inputs(0, "inside", (5,))
    (fresh,) = _inputs(1, "inside", (5,))
    net = stl.capture(model(), given(x), time="inside")
    expected = Counting()(fresh, 6, 2.0)[0].numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(net.simulate(np.broadcast_to(fresh.numpy(), (6, *fresh.shape))).y, expected)


def test_a_channel_taken_for_samples_names_the_time_that_it_has() -> None:
    class Image(Counting):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            if x.shape[1] != 1:
                raise RuntimeError("expected 1 channel")
            return super().forward(x.flatten(1), 4)[0]

    with pytest.raises(CaptureError, match="time='inside'"):
        stl.capture(Image(), torch.rand(2, 1, 5) * 2)


FOUR = torch.rand(4, 3, 3)
X, Y = torch.rand(5, 3, 5), torch.rand(5, 3, 3)
REFUSED: dict[str, tuple[Any, str]] = {
    "other numbers of steps": ((X, FOUR), r"expected \[T, B, ...\] of the same leading sizes; found \[5, 3, 5\]"),
    "another width": ((X, X), r"the model fails on 'x' of shape \[5, 3, 5\], 'y' of shape \[5, 3, 5\]: RuntimeError"),
    "one too few": (X, "give a forward of several inputs a tuple of them"),
    "one too many": ((X, Y, Y), r"inputs: expected those of forward\(x, y\); found x0, x1, x2"),
    "a number in a tensor's place": ((X, 3), "TypeError: linear"),
    "another name": ({"x": X, "z": Y}, r"inputs: expected those of forward\(x, y\); found x, z"),
    "no tensor": ({"x": X, "y": [3]}, "inputs: expected a tensor or array for each name"),
    "complex": ((X, Y + 1j), "inputs: expected real numbers; found complex ones"),
}


@pytest.mark.parametrize(("x", "reason"), REFUSED.values(), ids=REFUSED)
def test_inputs_that_forward_does_not_take_are_refused(x: Any, reason: str) -> None:
    class Plain(Stepped):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
            return ((self.a(x) + self.b(y)) > 0.5).float()

    with pytest.raises(CaptureError, match=reason):
        stl.capture(Plain(), x)


def test_the_verb_reads_an_array_for_each_input(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tests.tracing.test_several_inputs import Both\n")
    image, features = (part.numpy() for part in _inputs(0, "first", (1, 4, 4), (3,)))
    np.savez(tmp_path / "x.npz", x__image=image, x__features=features)
    capture_file(f"{tmp_path / 'mine.py'}:Both", tmp_path / "x.npz", tmp_path / "net.nir")
    net = stl.read(tmp_path / "net.nir")
    expected = Both()(torch.as_tensor(image), torch.as_tensor(features)).detach().numpy()
    np.testing.assert_array_equal(net.simulate({"image": image, "features": features}).y, expected)
