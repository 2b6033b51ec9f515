"""Convolution, pooling and flattening against torch."""

import nir
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.graph.nets import bare, chain


def whole(rng, shape):
    """Small integers, so that every order of summation gives the same float32."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def through(node, x):
    y = run(lower(chain(x.shape[2:], node)), x).y
    return y.reshape(-1, *y.shape[2:])


@st.composite
def convolutions(draw, rank):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    number = lambda low, high: [draw(st.integers(low, high)) for _ in range(rank)]  # noqa: E731
    kernel, dilation = number(1, 3), number(1, 2)
    padding = draw(st.sampled_from(["same", "valid", "numbers"]))
    stride = [1] * rank if padding == "same" else number(1, 3)
    spatial = [(k - 1) * d + 1 + draw(st.integers(0, 5)) for k, d in zip(kernel, dilation, strict=True)]
    return dict(
        groups=groups,
        out=groups * draw(st.integers(1, 2)),
        channels=draw(st.integers(1, 2)),
        kernel=kernel,
        dilation=dilation,
        stride=stride,
        padding=number(0, 2) if padding == "numbers" else padding,
        spatial=spatial,
        bias=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


@pytest.mark.filterwarnings("ignore:Using padding=.same.:UserWarning")
@pytest.mark.parametrize("rank", [1, 2])
@examples(100)
@given(data=st.data())
def test_convolution_is_torchs(rank, data):
    c = data.draw(convolutions(rank))
    rng = np.random.default_rng(c["seed"])
    weight = whole(rng, (c["out"], c["channels"], *c["kernel"]))
    bias = whole(rng, c["out"]) if c["bias"] else None
    x = whole(rng, (2, 3, c["channels"] * c["groups"], *c["spatial"]))
    options = {k: np.array(c[k]) for k in ("stride", "dilation")}
    padding = c["padding"] if isinstance(c["padding"], str) else np.array(c["padding"])
    kind = nir.Conv1d if rank == 1 else nir.Conv2d
    found = through(bare(kind, weight=weight, bias=bias, padding=padding, groups=c["groups"], **options), x)
    convolve = functional.conv1d if rank == 1 else functional.conv2d
    expected = convolve(
        torch.from_numpy(x.reshape(-1, *x.shape[2:])),
        torch.from_numpy(weight),
        None if bias is None else torch.from_numpy(bias),
        tuple(c["stride"]),
        c["padding"] if isinstance(c["padding"], str) else tuple(c["padding"]),
        tuple(c["dilation"]),
        c["groups"],
    )
    np.testing.assert_array_equal(found, expected.numpy())


def test_padding_may_differ_before_and_after():
    rng = np.random.default_rng(0)
    weight, x = whole(rng, (2, 1, 3, 2)), whole(rng, (2, 3, 1, 5, 4))
    sides = ((0, 2), (3, 1))
    options = dict(bias=None, stride=np.array([1, 2]), dilation=np.array([1, 1]), groups=1)
    found = through(bare(nir.Conv2d, weight=weight, padding=np.array(sides), **options), x)
    padded = functional.pad(torch.from_numpy(x.reshape(-1, 1, 5, 4)), (*sides[1], *sides[0]))
    np.testing.assert_array_equal(found, functional.conv2d(padded, torch.from_numpy(weight), stride=(1, 2)).numpy())


@pytest.mark.parametrize("kind", [nir.SumPool2d, nir.AvgPool2d])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (1, 1)), ((2, 3), (3, 1), (0, 1))]
)
def test_pooling_is_torchs(kind, kernel, stride, padding):
    x = whole(np.random.default_rng(0), (2, 2, 3, 7, 6))
    node = bare(kind, kernel_size=np.array(kernel), stride=np.array(stride), padding=np.array(padding))
    average = functional.avg_pool2d(torch.from_numpy(x.reshape(-1, 3, 7, 6)), kernel, stride, padding)
    if kind is nir.AvgPool2d:
        np.testing.assert_allclose(through(node, x), average.numpy(), rtol=1e-6)
    else:
        np.testing.assert_array_equal(through(node, x), np.round(average.numpy() * kernel[0] * kernel[1]))


@pytest.mark.parametrize(("start", "end"), [(0, -1), (0, 1), (1, 2), (-2, -1), (1, 1)])
def test_flatten_is_torchs_on_the_sample(start, end):
    x = np.arange(24, dtype=np.float32).reshape(1, 1, 2, 3, 4)
    expected = torch.flatten(torch.from_numpy(x[0, 0]), start, end)
    found = through(nir.Flatten({"input": None}, start, end), x)
    np.testing.assert_array_equal(found[0], expected.numpy())


@pytest.mark.parametrize("size", [(9,), (9, 7)])
def test_a_convolution_too_large_for_memory_is_made_row_by_row(monkeypatch, size):
    rng = np.random.default_rng(0)
    weight, x = whole(rng, (4, 1, *(3,) * len(size))), whole(rng, (2, 3, 2, *size))
    kind = nir.Conv1d if len(size) == 1 else nir.Conv2d
    sides = {name: np.array([1] * len(size)) for name in ("padding", "dilation")}
    node = bare(kind, weight=weight, stride=np.array([2] * len(size)), groups=2, bias=whole(rng, 4), **sides)
    at_once = through(node, x)
    monkeypatch.setattr("stl_deploy.graph.kernels._MOST_PATCH_BYTES", 1)
    np.testing.assert_array_equal(through(node, x), at_once)
