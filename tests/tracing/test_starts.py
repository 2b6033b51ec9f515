"""How states and recurrences start: from Python numbers, from tensors, from what a layer makes of zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from stl_deploy.graph.program import Linear


class Net(nn.Module):
    """16 inputs, 24 neurons; ``own`` is its forward."""

    def __init__(self, own: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.own = own
        self.a, self.b = nn.Linear(16, 24), nn.Linear(24, 24)
        self.r, self.r2 = nn.Linear(24, 24), nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def zeros(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[1], 24)


def require_same_spikes(own: Callable[[Net, Tensor], Tensor]) -> None:
    """Capture, and hold the graph against the module on other input, another number of steps and of samples."""
    torch.manual_seed(0)
    model, x, unseen = Net(own), torch.rand(10, 4, 16) * 3, torch.rand(13, 3, 16) * 3
    net = stl.capture(model, x)
    expected = model(unseen).detach().numpy()
    assert 0 < expected[0].sum() < expected[0].size, "step 0 must tell something"
    np.testing.assert_array_equal(net.simulate(unseen.numpy()).y, expected)


def scaled(net: Net, x: Tensor) -> Tensor:
    v = k = zeros(x)
    found = []
    for t in x:
        v = 0.8 * v * (1 - k) + net.a(t) + 0.3 * net.r(k)
        k = (v - 0.4 > 0).float()
        found.append(k)
    return torch.stack(found)


def scaled_and_shifted(net: Net, x: Tensor) -> Tensor:
    v = k = zeros(x)
    found = []
    for t in x:
        v = 0.8 * v + net.a(t) + (net.r(k) * 0.3 + 0.1) / 2 - k * 0.4
        k = (v - 0.4 > 0).float()
        found.append(k)
    return torch.stack(found)


def scaled_from_zeros(net: Net, x: Tensor) -> Tensor:
    v = k = recurrent = zeros(x)
    found = []
    for t in x:
        v = 0.8 * v * (1 - k) + net.a(t) + 0.3 * recurrent
        k = (v - 0.4 > 0).float()
        recurrent = net.r(k)
        found.append(k)
    return torch.stack(found)


def scaled_into_a_current(net: Net, x: Tensor) -> Tensor:
    i = v = k = zeros(x)
    found = []
    for t in x:
        i = 0.6 * i + net.a(t) + 0.3 * net.r(k)
        v = 0.8 * v * (1 - k) + i
        k = (v - 0.4 > 0).float()
        found.append(k)
    return torch.stack(found)


def scaled_between_two(net: Net, x: Tensor) -> Tensor:
    v = k = v2 = k2 = zeros(x)
    found = []
    for t in x:
        v = 0.8 * v * (1 - k) + net.a(t) + 0.3 * net.r(k2)
        k = (v - 0.4 > 0).float()
        v2 = 0.8 * v2 * (1 - k2) + net.b(k) + 0.7 * net.r2(net.b(k2))
        k2 = (v2 - 0.1 > 0).float()
        found.append(k2)
    return torch.stack(found)


@pytest.mark.parametrize(
    "own", [scaled, scaled_and_shifted, scaled_from_zeros, scaled_into_a_current, scaled_between_two]
)
def test_a_recurrence_with_a_bias_that_is_scaled(own: Callable[[Net, Tensor], Tensor]) -> None:
    require_same_spikes(own)


@pytest.mark.parametrize(
    "together",
    [
        lambda r, r2: 0.3 * (r + r2),
        lambda r, r2: (r - r2) / 2,
        lambda r, r2: 0.5 * (0.3 * r + r2) - 0.4 * r2,
    ],
    ids=["sum", "difference", "one of them twice"],
)
def test_recurrences_without_bias_that_are_scaled_together(together: Callable[[Tensor, Tensor], Tensor]) -> None:
    def own(net: Net, x: Tensor) -> Tensor:
        v = k = zeros(x)
        found = []
        for t in x:
            v = 0.8 * v * (1 - k) + net.a(t) + together(k @ net.r.weight.T, k @ net.r2.weight.T)
            k = (v - 0.4 > 0).float()
            found.append(k)
        return torch.stack(found)

    require_same_spikes(own)


def leak(state: Any, arriving: Tensor, decay: float) -> Tensor:
    """One line that makes both a current and a potential."""
    found: Tensor = decay * state + arriving
    return found


@pytest.mark.parametrize("resets", [lambda v, k: v * (1 - k), lambda v, k: v - k], ids=["to 0", "subtracts"])
@pytest.mark.parametrize("starts", [(0, None), (0, 0), (0.0, 0.0), (None, 0.0)], ids=str)
def test_a_neuron_with_a_current_that_starts_from_numbers(
    starts: tuple[float | None, float | None], resets: Callable[[Tensor, Tensor], Tensor]
) -> None:
    def own(net: Net, x: Tensor) -> Tensor:
        v, i = (zeros(x) if start is None else start for start in starts)
        found = []
        for t in x:
            i = leak(i, net.a(t), 0.7)
            v = leak(v, i, 0.9)
            k = (v - 1.0 > 0).float()
            v = resets(v, k)
            found.append(k)
        return torch.stack(found)

    require_same_spikes(own)


def test_two_layers_and_a_recurrence_whose_currents_start_from_numbers() -> None:
    def own(net: Net, x: Tensor) -> Tensor:
        i: Any = 0
        v = i2 = v2 = i
        k2 = zeros(x)
        found = []
        for t in x:
            i = leak(i, net.a(t) + net.r(k2), 0.7)
            v = leak(v, i, 0.9)
            k = (v - 1.0 > 0).float()
            v = v * (1 - k)
            i2 = leak(i2, net.b(k), 0.7)
            v2 = leak(v2, leak(i2, i, 0.1), 0.9)
            k2 = (v2 - 0.2 > 0).float()
            v2 = v2 - 0.2 * k2
            found.append(k2)
        return torch.stack(found)

    require_same_spikes(own)


def test_a_step_that_does_otherwise_is_told_to_start_from_tensors() -> None:
    def own(net: Net, x: Tensor) -> Tensor:
        i: Any = 0.0
        found = []
        for n, t in enumerate(x):
            i = leak(i, net.a(t) if n < 2 else 2 * net.a(t), 0.7)
            found.append((i - 1.0 > 0).float())
        return torch.stack(found)

    with pytest.raises(CaptureError, match=r"the same at every step, and let states start from tensors \(torch.zeros"):
        stl.capture(Net(own), torch.rand(6, 4, 16))


@pytest.mark.usefixtures("neurons_alone")
def test_what_a_recurrence_is_compared_to_is_no_start_and_no_error() -> None:
    """Gates are bool, and bool tensors have no difference."""

    def equal(net: Net, x: Tensor) -> Tensor:
        v = k = zeros(x)
        found = []
        for t in x:
            v = torch.where((net.r(k) != 0), 0.8 * v * (1 - k) + net.a(t), 0.8 * v * (1 - k) + net.a(t))
            k = (v - 0.4 > 0).float()
            found.append(k)
        return torch.stack(found)

    def gated(net: Net, x: Tensor) -> Tensor:
        v = k = zeros(x)
        found = []
        for t in x:
            v = 0.8 * v * (1 - k) + net.a(t) * (net.r(k) != 0)
            k = (v - 0.4 > 0).float()
            found.append(k)
        return torch.stack(found)

    require_same_spikes(equal)
    with pytest.raises(CaptureError):
        require_same_spikes(gated)


@pytest.mark.parametrize(
    "gated",
    [
        torch.maximum,
        lambda a, b: a * (1 - b),
        lambda a, b: torch.minimum(torch.maximum(a, b), a),
        lambda a, b: (a.bool() & b.bool()).float(),
    ],
    ids=["or", "and not", "of both", "and"],
)
def test_gates_of_spikes_are_fed_back(gated: Callable[[Tensor, Tensor], Tensor]) -> None:
    """The recurrent layer has a bias, so it reads the gate's late copy, which starts as the gate of no spikes."""

    def own(net: Net, x: Tensor) -> Tensor:
        v = u = zeros(x)
        fed, found = gated(v, u), []
        for t in x:
            v = 0.5 * v + net.a(t) + 0.25 * net.r(fed)
            u = 0.75 * u + net.b(net.a(t))
            k, n = (v > 0.25).float(), (u >= 0.125).float()
            v, u = v - 0.25 * k, u * (1 - n)
            fed = gated(k, n)
            found.append(fed)
        return torch.stack(found)

    torch.manual_seed(0)
    model, x = Net(own).eval(), torch.randint(0, 9, (10, 4, 16)) / 4
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 64).round() / 64)  # sums are exact, and potentials meet thresholds
    net = stl.capture(model, x)
    for steps, samples, scale in ((1, 3, 1), (14, 5, 1), (9, 2, 4), (9, 3, -2), (7, 1, 0)):
        unseen = torch.randint(0, 9, (steps, samples, 16)) / 4 * scale
        expected = model(unseen).detach().numpy()
        np.testing.assert_array_equal(net.simulate(unseen.numpy()).y, expected)


def _spikes(v: Tensor) -> Tensor:
    return (v - 0.4 > 0).float()


def spikes_that_start_at_1(net: Net, x: Tensor) -> Tensor:
    v, k = zeros(x), torch.ones_like(zeros(x))
    found = []
    for t in x:
        v = 0.8 * v + net.a(t) + net.r(k)
        k = _spikes(v)
        v = v - 0.4 * k
        found.append(k)
    return torch.stack(found)


def a_layer_behind_spikes_that_start_at_1(net: Net, x: Tensor) -> Tensor:
    v = w = zeros(x)
    k = torch.ones_like(v)
    found = []
    for t in x:
        w = 0.8 * w + net.r(k)
        found.append(_spikes(w))
        w = w - 0.4 * found[-1]
        v = 0.8 * v + net.a(t)
        k = _spikes(v)
        v = v - 0.4 * k
    return torch.stack(found)


def a_first_step_without_leak_and_gain(net: Net, x: Tensor) -> Tensor:
    v: Tensor | None = None
    found = []
    for t in x:
        i = net.a(t)
        v = i if v is None else 0.8 * v + 0.2 * i
        found.append(_spikes(v))
        v = v - 0.4 * found[-1]
    return torch.stack(found)


def a_sum_from_a_python_number(net: Net, x: Tensor) -> Tensor:
    v: Any = 0
    found = []
    for t in x:
        v = v + net.a(t)
        found.append(_spikes(v))
    return torch.stack(found)


def a_sum_of_all_spikes_at_each_step(net: Net, x: Tensor) -> Tensor:
    v, spikes, found = zeros(x), list[Tensor](), []
    for t in x:
        v = 0.8 * v + net.a(t)
        spikes.append(_spikes(v))
        v = v - 0.4 * spikes[-1]
        total: Any = sum(spikes)
        found.append((total > 2).float())
    return torch.stack(found)


@pytest.mark.parametrize(
    "own",
    [
        spikes_that_start_at_1,
        a_layer_behind_spikes_that_start_at_1,
        a_first_step_without_leak_and_gain,
        a_sum_from_a_python_number,
        a_sum_of_all_spikes_at_each_step,
    ],
)
def test_starts_that_no_neuron_has_are_those_of_cells(own: Callable[[Net, Tensor], Tensor]) -> None:
    _require_same_at_any_strength(own)


def from_step_1_on(net: Net, x: Tensor) -> Tensor:
    v = zeros(x)
    found = torch.zeros(len(x), *v.shape)
    for n in range(1, len(x)):
        v = 0.8 * v + net.a(x[n])
        found[n] = _spikes(v)
        v = v - 0.4 * found[n]
    return found


def test_a_first_step_in_which_nothing_runs() -> None:
    _require_same_at_any_strength(from_step_1_on)


def _require_same_at_any_strength(own: Callable[[Net, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model, x = Net(own), torch.rand(10, 4, 16) * 3
    net = stl.capture(model, x)
    for unseen in (torch.randn(13, 3, 16), 100 * torch.randn(7, 2, 16), torch.zeros(10, 4, 16)):
        np.testing.assert_array_equal(net.simulate(unseen.numpy()).y, model(unseen).detach().numpy())


def of_the_mean_over_time(net: Net, x: Tensor) -> Tensor:
    v: Any = 0.0
    i, found = net.a(x.mean(0)), []
    for _ in x:
        v = 0.8 * v + i
        found.append(_spikes(v))
    return torch.stack(found)


def after_two_silent_steps(net: Net, x: Tensor) -> Tensor:
    v, found = zeros(x), []
    for t in torch.cat((torch.zeros_like(x[:2]), x)):
        v = 0.8 * v + net.a(t)
        found.append(_spikes(v))
    return torch.stack(found[2:])


def of_the_later_half(net: Net, x: Tensor) -> Tensor:
    return a_sum_from_a_python_number(net, x)[len(x) // 2 :]


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        (of_the_mean_over_time, "what is made of all steps"),
        (after_two_silent_steps, "runs 2 steps before the first of x"),
        (of_the_later_half, "of 10 steps the model leaves out the first 5, and of 20 steps 10"),
    ],
)
def test_steps_that_no_graph_runs_are_named(own: Callable[[Net, Tensor], Tensor], reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        stl.capture(Net(own), torch.rand(10, 4, 16))


class Late(nn.Module):
    """A LIF that also reads something of the step before, which was 1 before the first step."""

    def __init__(self, reads: str) -> None:
        super().__init__()
        self.fc, self.of_spikes, self.of_input = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(6, 5)
        self.reads = reads

    def read(self, spikes: Tensor, x: Tensor) -> Tensor:
        match self.reads:
            case "input":
                return self.of_input(x)
            case "slice":
                return x[:, :5]
            case "weights of flipped":
                return self.of_spikes(spikes.flip(-1))
            case "sum":
                return -spikes.sum(-1, keepdim=True)
            case "pool":
                return -nn.functional.max_pool1d(spikes[:, None], 3, 1, 1)[:, 0]
            case "rolled pool":
                return nn.functional.max_pool1d(spikes[:, None], 3, 1, 1)[:, 0].roll(1, -1)
            case "product":
                return self.of_spikes(spikes) * x[:, :5]
            case _:
                return spikes[:, [1, 0, 2, 4, 3]]

    def forward(self, x: Tensor) -> Tensor:
        v, spikes, last, out = torch.zeros(x.shape[1], 5), torch.ones(x.shape[1], 5), torch.ones_like(x[0]), []
        for step in x:
            v = 0.5 * v + self.fc(step) + 0.0625 * self.read(spikes, last)
            spikes, last = (v >= 0.5).float(), step
            v = v - 0.5 * spikes
            out.append(spikes)
        return torch.stack(out)


READS = ("input", "slice", "weights of flipped", "sum", "pool", "rolled pool", "product", "order")


@pytest.mark.parametrize("reads", READS)
def test_what_was_1_before_the_first_step_is_held_whatever_layer_reads_it(reads: str) -> None:
    """Only weights that read spikes kept it: where x did not show the difference, the graph was wrong in silence."""
    for seed in range(3):
        torch.manual_seed(seed)
        model, x = Late(reads), (torch.rand(6, 3, 6) < 0.3).float()
        for parameter in model.parameters():
            parameter.data = torch.round(parameter.data * 64) / 64  # sums are exact in any order
        net = stl.capture(model, x)
        fresh = (torch.rand(4, 256, 6) < 0.5).float()
        with torch.no_grad():
            want = model(fresh).numpy()
        assert np.array_equal(net.simulate(fresh.numpy()).y, want)


SUMS: list[Callable[[Any, Tensor, Tensor], Tensor]] = [
    lambda v, a, b: v + a + b,
    lambda v, a, b: v + (a + b),
    lambda v, a, b: 0.5 * v + a + b,
    lambda v, a, b: a + v + b,
]


class SameInput(Net):
    """Every step reads all of x; the potential, of two layers, starts as a Python number."""

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0
        steps = []
        for _ in range(8):
            spikes = (self.own(v, self.a(x), self.a2(x)) > 0.5).float()  # type: ignore[call-arg, arg-type]
            v = self.own(v, self.a(x), self.a2(x)) * (1 - spikes)  # type: ignore[call-arg, arg-type]
            steps.append(spikes)
        return torch.stack(steps)


@pytest.mark.parametrize("summed", SUMS)
def test_sums_of_one_input_that_start_from_a_number(summed: Any) -> None:
    torch.manual_seed(0)
    model, x, unseen = SameInput(summed), torch.rand(4, 16), torch.rand(3, 16)
    model.a2 = nn.Linear(16, 24)
    net = stl.capture(model, x, time="inside")
    expected = model(unseen).detach().numpy()
    np.testing.assert_array_equal(net.simulate(unseen.expand(8, *unseen.shape).numpy()).y, expected)


def fed_back_with_a_bias(net: Net, x: Tensor) -> Tensor:
    v = fed = zeros(x)
    steps = []
    for t in x:
        v = 0.5 * v + net.a(t) + fed
        spikes = (v > 0.3).float()
        fed, v = net.b(spikes), v * (1 - spikes)
        steps.append(fed)
    return torch.stack(steps)


def test_a_layer_that_is_fed_back_and_put_out_is_built_once() -> None:
    torch.manual_seed(0)
    net = stl.capture(Net(fed_back_with_a_bias), torch.rand(10, 4, 16))
    assert sum(isinstance(node, Linear) for node in net.program.nodes) == 2
