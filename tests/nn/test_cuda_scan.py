"""The Triton kernels of the LIF scan against torch's: in Triton's interpreter on the CPU, compiled where CUDA is.

``make gpu-interpreted`` installs Triton and runs this; without Triton it is skipped.
"""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton", reason="Triton is not installed: make gpu-interpreted")

from stl_deploy.nn import cuda
from stl_deploy.nn.cuda.scan import lif_scan as by_kernels
from stl_deploy.nn.lif_scan import lif_scan
from stl_deploy.nn.surrogate import SURROGATES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = (3, 7, 6)
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 2e-2}
THETAS = {"neuron": SHAPE, "channel": (3, 1, 1), "layer": ()}


def _both(dtype, theta_shape, surrogate, detach, *, samples=37):
    """Spikes and gradients by torch's operations on the CPU, and by the kernels."""
    torch.manual_seed(0)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(5, samples, *SHAPE).to(dtype) * 1.5
    theta, decay = torch.rand(theta_shape, dtype=wide) + 0.3, torch.tensor(0.6, dtype=wide)
    weights = torch.randn(x.shape, dtype=wide)
    results = []
    for scan, device in ((lif_scan, "cpu"), (by_kernels, DEVICE)):
        leaves = [one.to(device).requires_grad_() for one in (x.clone(), theta.clone(), decay.clone())]
        spikes = scan(*leaves, SURROGATES[surrogate], detach_reset=detach)
        (spikes.to(wide) * weights.to(device)).sum().backward()
        results.append([spikes.detach().to(wide).cpu(), *(leaf.grad.cpu() for leaf in leaves)])
    return results


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("surrogate", list(SURROGATES))
@pytest.mark.parametrize("granularity", list(THETAS))
def test_spikes_are_torchs_to_the_bit_and_gradients_to_rounding(granularity, surrogate, detach):
    for dtype in (torch.float64, torch.bfloat16) if surrogate == "arctan" else (torch.float32,):
        (spikes, *expected), (others, *found) = _both(dtype, THETAS[granularity], surrogate, detach)
        assert 0.05 < spikes.mean() < 0.95
        assert torch.equal(spikes, others)
        for gradient, other in zip(expected, found, strict=True):
            error = (gradient.double() - other.double()).abs().max() / gradient.double().abs().max()
            assert error < CLOSE[dtype]


@pytest.mark.parametrize("samples", [0, 1, 33])
def test_any_number_of_samples(samples):
    (spikes, *_, of_decay), (others, *_, of_other) = _both(torch.float64, SHAPE, "sigmoid", False, samples=samples)
    assert torch.equal(spikes, others)
    torch.testing.assert_close(of_decay, of_other)


def test_a_potential_on_the_threshold_fires_so_nothing_is_contracted():
    """Thresholds where β·r + x in two roundings just reaches them, and a fused multiply-add would not."""
    torch.manual_seed(0)
    decay, first, second = torch.tensor(0.7), torch.rand(4000), torch.rand(4000) + 0.5
    theta = decay * first + second
    fused = (decay.double() * first.double() + second.double()).float()
    chosen = (fused < theta) & (first < theta)
    assert chosen.sum() > 100
    x = torch.stack([first[chosen], second[chosen]])[:, None]
    spikes = by_kernels(
        x.to(DEVICE), theta[chosen].to(DEVICE), decay.to(DEVICE), SURROGATES["arctan"], detach_reset=True
    )
    assert spikes[0].sum() == 0
    assert bool((spikes[1] == 1).all())


def test_the_cpu_and_unknown_surrogates_stay_with_torch():
    assert not cuda.ready(torch.zeros(1, 1, 1), SURROGATES["arctan"])
    assert not cuda.ready(torch.zeros(1, 1, 1), lambda x, *, out=None: x)
