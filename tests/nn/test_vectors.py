"""Vectors for numba, against numpy, for every number of lanes that can be left over at an end."""

import numpy as np
import pytest
import torch
from numba import njit

from stl_deploy.nn.fused.vectors import (
    LANES,
    at_least,
    choose,
    either,
    exp,
    fill,
    is_aligned,
    load,
    row_at,
    store,
    stream,
)

BESIDE = 77.0
"""What lies behind a row, to be left alone."""


@njit
def _everything(a, b, out):
    x, y, z, n = row_at(a, 0), row_at(b, 0), row_at(out, 0), a.size
    for i in range(0, n, LANES):
        count = min(LANES, n - i)
        u, v = load(x, i, count), load(y, i, count)
        third = fill(a.dtype.type(3))
        large = either(at_least(u, v), at_least(u, third))
        store(z, i, count, choose(large, (u + v) * third, exp(u - v) / third))


@pytest.mark.push(12)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [*range(1, LANES + 2), 3 * LANES - 1])
def test_arithmetic_comparison_and_choice(dtype, size):
    rng = np.random.default_rng(size)
    a, b = (rng.normal(size=size).astype(dtype) * 3 for _ in range(2))
    a[0] = np.nan  # at least nothing
    out = np.full(size + LANES, BESIDE, dtype)
    _everything(a, b, out)
    expected = np.where((a >= b) | (a >= 3), (a + b) * dtype(3), np.exp(a - b) / dtype(3))
    np.testing.assert_allclose(out[:size], expected, rtol=4 * np.finfo(dtype).eps)
    assert (out[size:] == BESIDE).all()


@njit
def _through(source, target, add):
    x, y = row_at(source, 0), row_at(target, 0)
    for i in range(0, source.size, LANES):
        count = min(LANES, source.size - i)
        store(y, i, count, load(x, i, count) + fill(add))


@pytest.mark.parametrize("size", [LANES, LANES + 5])
def test_bfloat16_is_read_and_written_as_torch_does(size):
    torch.manual_seed(0)
    numbers = torch.randn(size).bfloat16()
    numbers[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    bits, add = numbers.view(torch.uint16).numpy(), np.float32(1 / 3)
    out = np.zeros(size, np.uint16)
    _through(bits, out, add)
    expected = (numbers.float() + float(add)).bfloat16()
    torch.testing.assert_close(torch.from_numpy(out).view(torch.bfloat16), expected, rtol=0, atol=0, equal_nan=True)
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32).view(np.float32)  # between two, and just above
    _through(ties, out[:3], np.float32(0))
    assert out[:3].tolist() == torch.from_numpy(ties).bfloat16().view(torch.uint16).tolist() == [0x3F80, 0x3F82, 0x3F81]


@njit
def _streamed(source, target, place):
    out = row_at(target, place)
    if not is_aligned(out):
        return False
    for i in range(0, source.size, LANES):
        stream(out, i, load(row_at(source, 0), i, LANES))
    return True


def test_streaming_needs_alignment_and_writes_the_same():
    source, room = np.arange(2.0 * LANES, dtype=np.float32), np.zeros(4 * LANES, np.float32)
    fits = [place for place in range(LANES) if _streamed(source, room, place)]
    assert len(fits) == 1
    assert (room.ctypes.data + 4 * fits[0]) % (4 * LANES) == 0
    np.testing.assert_array_equal(room[fits[0] : fits[0] + 2 * LANES], source)
