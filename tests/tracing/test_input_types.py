"""Input is read in the order of forward's arguments, and as the module computes on its own types; else refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError, InputError, StlDeployError

SHAPE = (5, 3, 4)


def _draw(kind: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randint(0, 2 if kind == torch.bool else 255, SHAPE, generator=torch.Generator().manual_seed(seed)).to(
        kind
    )


class Prepared(nn.Module):
    """Neurons behind what is made of the inputs."""

    def __init__(self, prepare: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif, self.prepare = nn.Linear(4, 6), stl.LIF((6,), threshold=0.4), prepare

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.lif(self.fc(self.prepare(a, b)))


class OfOne(Prepared):
    """The same of one input."""

    def forward(self, a: Tensor) -> Tensor:  # type: ignore[override]
        return self.lif(self.fc(self.prepare(a)))


X = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2


def test_a_tuple_is_in_the_order_of_arguments_whatever_the_dict_was() -> None:
    model = Prepared(lambda a, b: a - b)
    net = stl.capture(model, {"b": X[1], "a": X[0]})
    expected = model(X[0], X[1]).detach().numpy()
    assert (expected != model(X[1], X[0]).detach().numpy()).any()
    np.testing.assert_array_equal(net.simulate((X[0], X[1])).y, expected)


def test_a_tuple_is_refused_where_inputs_have_no_order() -> None:
    net = stl.capture(Prepared(lambda a, b: a - b), (X[0], X[1]))
    with pytest.raises(InputError, match="expected a dict of inputs by name"):
        stl.SpikingGraph(net.program).simulate((X[0], X[1]))


def test_a_stream_takes_the_modules_names() -> None:
    model = Prepared(lambda a, b: a - b)
    stream = stl.capture(model, (X[0], X[1])).stream()
    expected = model(X[0], X[1]).detach().numpy()
    by_name = [stream.step({"b": b, "a": a}) for a, b in zip(X[0], X[1], strict=True)]
    np.testing.assert_array_equal(by_name, expected)


WRAPPING: list[tuple[type[Prepared], torch.dtype, Callable[..., Tensor], str]] = [
    (Prepared, torch.uint8, lambda a, b: (a - b).float() / 100, "'sub' computes in uint8"),
    (Prepared, torch.bool, lambda a, b: (a + b).float(), "a sum of bools"),
    (OfOne, torch.uint8, lambda a: (a + a).float() / 100, "'add' computes in uint8"),
]


@pytest.mark.parametrize(("kind", "dtype", "prepare", "reason"), WRAPPING)
def test_arithmetic_on_the_inputs_own_type_is_refused(
    kind: type[Prepared], dtype: torch.dtype, prepare: Callable[..., Tensor], reason: str
) -> None:
    x: Any = _draw(dtype) if kind is OfOne else (_draw(dtype), _draw(dtype, 1))
    with pytest.raises(CaptureError, match=reason) as refused:
        stl.capture(kind(prepare), x)
    assert "test_input_types.py" in str(refused.value.line)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64])
def test_a_module_that_only_casts_is_captured(dtype: torch.dtype) -> None:
    model = Prepared(lambda a, b: (a.float() - b.float()) / 100)
    net = stl.capture(model, (_draw(dtype), _draw(dtype, 1)), verify=False)
    fresh = _draw(dtype, 2), _draw(dtype, 3)
    np.testing.assert_array_equal(net.simulate(fresh).y, model(*fresh).detach().numpy())


def test_float64_that_float32_rounds_is_refused() -> None:
    large = 2.0**25 + torch.arange(60.0, dtype=torch.float64).reshape(SHAPE)
    net = stl.capture(Prepared(lambda a, b: (a - b).float()), (X[0], X[1]))
    for call in (lambda x: stl.capture(Prepared(lambda a, b: (a - b).float()), x), net.simulate):
        with pytest.raises(StlDeployError, match=r"expected numbers that float32 holds.*found 335544[0-9]+"):
            call((large, large.flip(0)))


def test_outputs_in_float64_that_float32_has_not_are_refused() -> None:
    small = torch.full(SHAPE, 1.0, dtype=torch.float64) + torch.arange(60.0).reshape(SHAPE) * 1e-9
    with pytest.raises(CaptureError, match="other outputs on x in float64 than on the same values in float32"):
        stl.capture(OfOne(lambda a: ((a - 1) * 1e9).float()), small)


class Masked(Prepared):
    """A second argument that forward can do without."""

    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        return self.lif(self.fc(a if b is None else a - b))


def test_a_list_that_may_be_steps_or_inputs_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"may be 2 steps or inputs of forward\(a, b\)"):
        stl.capture(Masked(lambda a: a), [X[0, 0], X[0, 1]])
    assert len(stl.capture(Masked(lambda a: a), list(X[0])).program.inputs) == 1
    assert len(stl.capture(Prepared(lambda a, b: a - b), [X[0], X[1]]).program.inputs) == 2
