"""Layers with biases that are read a step or more late: step 0 is the module's, whatever the code starts them from."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl

SEEDS = range(4)
Steps = Callable[["Late", Tensor], Tensor]


class Late(nn.Module):
    """A layer of spikes, whose norm and linear layer a form reads late."""

    def __init__(self, form: Steps) -> None:
        super().__init__()
        self.form = form
        self.a, self.b, self.norm = nn.Linear(6, 8), nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.form(self, x)


def fires(v: Tensor, theta: float) -> Tensor:
    return (v >= theta).float()


def norm_of_the_step_before(net: Late, x: Tensor) -> Tensor:
    before = v = w = torch.zeros(x.shape[1], 8)
    out = []
    for current in net.a(x):
        v = 0.8 * v + current
        z = fires(v, 0.4)
        v = v - 0.4 * z
        w = 0.6 * w + net.norm(before) + z
        before = z
        y = fires(w, 0.5)
        w = w * (1 - y)
        out.append(y)
    return torch.stack(out)


def layer_of_a_queue_and_of_now(net: Late, x: Tensor) -> Tensor:
    queue = [torch.zeros(x.shape[1], 8)] * 3
    v = w = torch.zeros(x.shape[1], 8)
    out = []
    for current in net.a(x):
        v = 0.8 * v + current
        z = fires(v, 0.4)
        v = v - 0.4 * z
        w = 0.5 * w + net.b(queue[0]) + net.b(z)
        queue = [*queue[1:], z]
        y = fires(w, 0.3)
        w = w - 0.3 * y
        out.append(y)
    return torch.stack(out)


def nothing_in_the_first_step(net: Late, x: Tensor) -> Tensor:
    v, before, out = torch.zeros(x.shape[1], 8), None, []
    for current in net.a(x):
        v = 0.9 * v + (current if before is None else current + 0.5 * before)
        before = current
        y = fires(v, 0.5)
        v = v - 0.5 * y
        out.append(y)
    return torch.stack(out)


def difference_from_nothing(net: Late, x: Tensor) -> Tensor:
    w, before, out = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 8), []
    for current in net.a(x):
        w = w + current - before
        before = current
        y = fires(w, 0.2)
        w = w - 0.2 * y
        out.append(y)
    return torch.stack(out)


def potential_of_late_layers(net: Late, x: Tensor) -> Tensor:
    before = v = w = torch.zeros(x.shape[1], 8)
    out = []
    for current in net.a(x):
        v = 0.8 * v + current
        z = fires(v, 0.4)
        v = v - 0.4 * z
        w = 0.9 * w + 0.5 * net.b(before)
        before = z
        out.append(w)
    return torch.stack(out)


FORMS = (
    norm_of_the_step_before,
    layer_of_a_queue_and_of_now,
    nothing_in_the_first_step,
    difference_from_nothing,
    potential_of_late_layers,
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [0.02, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_steps_are_the_module_s(form: Steps, bias: float, seed: int) -> None:
    torch.manual_seed(seed)
    net = Late(form).eval()
    for layer in (net.a, net.b):
        layer.bias.data *= bias
    graph = stl.capture(net, torch.randn(8, 3, 6), progress=False)
    fresh = torch.randn(11, 20, 6)
    with torch.no_grad():
        wanted = net(fresh).numpy()
    made = graph.simulate(fresh.numpy()).y
    assert wanted[:2].any()
    if form is potential_of_late_layers:
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)
    else:
        assert (made != wanted).sum() <= 1  # one at its threshold, at most
