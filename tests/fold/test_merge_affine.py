"""Scales and offsets in front of weights go into them, where that means the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.config.options import FoldOptions
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower, with_metadata
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.graph.run import run
from stl_deploy.passes import FOREIGN, fold_affine
from stl_deploy.pipeline import fold as folding
from tests.fold.passed import passed
from tests.graph.nets import a, chain, full, graph, iff
from tests.passes.test_checked import caught


def merge_affine(net: nir.NIRGraph, dialect: Dialect) -> nir.NIRGraph:
    return passed(fold_affine.PASS, net, dialect)[0]


def fold_graph(net: nir.NIRGraph, dialect: Dialect, **options: Any) -> nir.NIRGraph:
    return to_graph(folding.fold(lower(net, dialect), FoldOptions(**options)).program).graph


def _depthwise(scale: Any, offset: Any) -> nir.Conv2d:
    """s·x + t of each channel of images of 2 by 2."""
    weight = np.reshape(a(*scale), (-1, 1, 1, 1))
    return nir.Conv2d((2, 2), weight, (1, 1), (0, 0), (1, 1), len(scale), a(*offset))


def _conv(weight: Any, bias: Any, padding: int = 0, groups: int = 1) -> nir.Conv2d:
    return nir.Conv2d((2, 2), np.asarray(weight, np.float32), (1, 1), (padding, padding), (1, 1), groups, a(*bias))


def _whole(net: nir.NIRGraph) -> nir.NIRGraph:
    """The graph with integers up to 4 as its input."""
    return with_metadata(net, {"input": {"coding": "analog", "fraction_bits": 0, "max": 4.0}})


def _same(net: nir.NIRGraph, made: nir.NIRGraph) -> None:
    program = lower(net)
    x = np.random.default_rng(0).integers(-3, 4, (5, 2, *program.inputs[0].shape)).astype(np.float32)
    np.testing.assert_array_equal(run(program, x).y, run(lower(made), x).y)


def test_an_offset_and_a_scale_go_into_a_linear_layer_by_hand() -> None:
    net = _whole(chain([2], nir.Affine(np.diag(a(2, 4)), a(1, -1)), nir.Scale(a(0.5, 3)), nir.Linear(a([1, 2]))))
    made = merge_affine(net, Dialect())
    (weights,) = (node for node in made.nodes.values() if isinstance(node, nir.Linear | nir.Affine))
    assert isinstance(weights, nir.Affine)
    np.testing.assert_array_equal(weights.weight, [[1, 24]])  # 1·0.5·2, 2·3·4
    np.testing.assert_array_equal(weights.bias, [-5.5])  # 1·0.5·1 - 2·3
    assert len(made.nodes) == 3
    _same(net, made)


def test_a_scale_alone_gives_no_bias_and_goes_through_flattening() -> None:
    flat = nir.Flatten({"input": np.array([2, 2, 2])}, -3, -1)
    net = chain([2, 2, 2], nir.Scale(np.arange(8, dtype=np.float32).reshape(2, 2, 2)), flat, nir.Linear(np.eye(8)[:3]))
    made = merge_affine(net, Dialect())
    (weights,) = (node for node in made.nodes.values() if isinstance(node, nir.Linear))
    np.testing.assert_array_equal(weights.weight, np.diag(np.arange(8))[:3])
    _same(net, made)


def test_each_group_of_a_convolution_takes_in_its_own_channels() -> None:
    weight = np.arange(1, 17).reshape(4, 1, 2, 2)
    net = _whole(chain([2, 2, 2], _depthwise((2, 3), (1, -2)), _conv(weight, (0, 1, 2, 3), groups=2)))
    made = merge_affine(net, Dialect())
    (conv,) = (node for node in made.nodes.values() if isinstance(node, nir.Conv2d))
    np.testing.assert_array_equal(conv.weight, weight * np.reshape([2, 2, 3, 3], (4, 1, 1, 1)))
    np.testing.assert_array_equal(conv.bias, [10, 27, 2 - 84, 3 - 116])
    _same(net, made)


def test_all_that_read_a_scale_take_it_in() -> None:
    parts = {"s": nir.Scale(full((2,), 3)), "l": nir.Linear(a([1, 2])), "m": nir.Linear(a([3, 4])), "n": iff((1,))}
    edges = [("input", "s"), ("s", "l"), ("s", "m"), ("l", "n"), ("m", "n"), ("n", "output")]
    net = graph(
        {**parts, "input": nir.Input({"input": np.array([2])}), "output": nir.Output({"output": np.array([1])})}, edges
    )
    made = merge_affine(net, Dialect())
    assert "s" not in made.nodes
    np.testing.assert_array_equal(made.nodes["m"].weight, [[9, 12]])
    _same(net, made)


@pytest.mark.parametrize(
    "net",
    [
        _whole(chain([2, 2, 2], _depthwise((2, 3), (1, 0)), _conv(np.ones((1, 2, 3, 3)), (0,), padding=1))),
        chain(
            [1, 2, 2], nir.Scale(np.arange(4, dtype=np.float32).reshape(1, 2, 2)), _conv(np.ones((1, 1, 2, 2)), (0,))
        ),
        chain([2], nir.Scale(a(2, 3)), iff((2,)), nir.Linear(np.eye(2))),
        chain([2], nir.Linear(a([1, 2], [0, 1])), nir.Linear(a([1, 2]))),
        chain(
            [2, 2, 2],
            _conv(np.ones((2, 1, 1, 1)), (0, 0), padding=1, groups=2),
            nir.Conv2d((4, 4), np.ones((1, 2, 2, 2), np.float32), 1, 0, 1, 1, a(0)),
        ),
        chain([2], nir.Affine(np.diag(a(2, 4)), a(1, -1)), nir.Linear(a([1, 2]))),
        chain([1], nir.Scale(a(1e20)), nir.Linear(a([1e20]))),
        _whole(chain([1], nir.Affine(a([1]), a(1e20)), nir.Linear(a([1e20])))),
    ],
    ids=[
        "offset before padding",
        "scale per pixel",
        "neuron",
        "mixed values",
        "padded itself",
        "offset of what has no known grid",
        "weights beyond float32",
        "bias beyond float32",
    ],
)
def test_what_weights_cannot_take_in_stays(net: nir.NIRGraph) -> None:
    assert merge_affine(net, Dialect()) is net


def test_a_convolution_without_bias_gets_one() -> None:
    conv = _conv(np.ones((1, 2, 2, 2)), (0,))
    conv.bias = None
    net = _whole(chain([2, 2, 2], _depthwise((2, 3), (1, -2)), conv))
    made = merge_affine(net, Dialect())
    (found,) = (node for node in made.nodes.values() if isinstance(node, nir.Conv2d))
    np.testing.assert_array_equal(found.bias, [4 * 1 - 4 * 2])
    _same(net, made)


def test_many_in_a_row_go_into_one() -> None:
    scales = [nir.Scale(a(2, 1)) if i % 2 else nir.Scale(a(0.5, 1)) for i in range(1200)]
    made = merge_affine(chain([2], *scales, nir.Linear(a([1, 2]))), Dialect())
    (linear,) = (node for node in made.nodes.values() if isinstance(node, nir.Linear))
    np.testing.assert_array_equal(linear.weight, [[1, 2]])
    assert len(made.nodes) == 3


def test_an_input_far_from_zero_is_normalised_where_it_was() -> None:
    """W·mean/std would be large, and float32 rounds the sum of both."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = Normalised(nn.Linear(32, 200), flat=True, mean=1e6, std=1.0)
    x = torch.from_numpy(rng.normal(1e6, 1.0, (6, 20, 2, 4, 4)).astype(np.float32))
    net = stl.capture(model, x)
    np.testing.assert_array_equal(net.fold().simulate(x.numpy()).y, model(x).detach().numpy())


class Normalised(nn.Module):
    def __init__(self, layer: nn.Module, flat: bool, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        self.layer, self.flat, self.mean, self.std = layer, flat, mean, std

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0.0
        found = []
        for t in (x - self.mean) / self.std:
            v = 0.75 * v + self.layer(t.flatten(1) if self.flat else t)
            k = (v - 0.5 > 0).float()
            v = v * (1 - k)
            found.append(k)
        return torch.stack(found)


@pytest.mark.parametrize("flat", [True, False], ids=["linear", "convolution"])
def test_an_input_that_is_normalised_becomes_c(flat: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Normalised(nn.Linear(32, 8) if flat else nn.Conv2d(2, 3, 3), flat)
    x = torch.randint(0, 17, (6, 3, 2, 4, 4)) / 16
    net = stl.capture(model, x)
    folded = net.fold(input_grid=4, exact_grid=False)
    assert sum(type(node).__name__ in ("Affine", "Conv2d", "Scale") for node in folded.graph.nodes.values()) == 1
    np.testing.assert_array_equal(folded.simulate(x.numpy()).y, model(x).detach().numpy())
    net.fold(input_grid=4).export(tmp_path / "c", "c")


def test_a_merge_that_spikes_otherwise_is_not_returned() -> None:
    net = chain([2], nir.Scale(a(0.25, 0.25)), nir.Linear(a([1, 2], [2, 1])), iff((2,)))
    assert sorted(fold_graph(net, Dialect()).nodes) == ["input", "n1", "n2", "output"]
    caught(fold_affine.PASS, lower(net, Dialect()), FOREIGN, FoldOptions())


def test_an_offset_behind_a_scale_goes_into_weights_where_the_input_is_bounded() -> None:
    net = _whole(chain([2], nir.Scale(a(4, 2)), nir.Affine(np.diag(a(1, 1)), a(-2, 1)), nir.Linear(a([1, 3]))))
    made = merge_affine(net, Dialect())
    (weights,) = (node for node in made.nodes.values() if isinstance(node, nir.Linear | nir.Affine))
    assert isinstance(weights, nir.Affine)
    np.testing.assert_array_equal(weights.weight, [[4, 6]])
    np.testing.assert_array_equal(weights.bias, [1])  # 1·-2 + 3·1
    _same(net, made)
