"""The many ways in which people write spikes, thresholds and readouts, each held against the module by the proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

import stl_deploy as stl
from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.graph.program import Neuron, Product
from stl_deploy.tracing import uncompiled

THETA = torch.linspace(0.3, 0.9, 8)


def where(v: Tensor) -> Tensor:
    return torch.where(v >= 0.6, torch.ones_like(v), torch.zeros_like(v))


def where_numbers(v: Tensor) -> Tensor:
    return torch.where(v > 0.6, 1.0, 0.0)


def sign(v: Tensor) -> Tensor:
    return functional.relu(torch.sign(v - 0.6))


def relative(v: Tensor) -> Tensor:
    return ((v - THETA) / THETA > 0).float()


def normalised(v: Tensor) -> Tensor:
    return (v / THETA - 1 >= 0).float()


def heaviside(v: Tensor) -> Tensor:
    return torch.heaviside(v - 0.6, torch.zeros(()))


def heaviside_from_zero(v: Tensor) -> Tensor:
    return torch.heaviside(v - THETA, torch.ones(8))


def below(v: Tensor) -> Tensor:
    return 1 - torch.ge(THETA, v).float()


def threshold_first(v: Tensor) -> Tensor:
    return torch.lt(THETA, v).float()


def mask(v: Tensor) -> Tensor:
    z = torch.zeros_like(v)
    z[v > 0.6] = 1
    return z


class Net(nn.Module):
    """One layer of neurons with a reset to 0; ``spike`` makes the spikes, ``end`` the output."""

    def __init__(self, spike: Callable[[Tensor], Tensor], end: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        super().__init__()
        self.fc, self.head, self.spike, self.end = nn.Linear(6, 8), nn.Linear(8, 3), spike, end

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 8), []
        for step in x:
            v = 0.9 * v + self.fc(step)
            z = self.spike(v)
            v = v * (1 - z)
            out.append(z)
        return self.end(torch.stack(out))


@pytest.mark.parametrize(
    "spike",
    [
        *[where, where_numbers, sign, relative, normalised, mask],
        *[heaviside, heaviside_from_zero, below, threshold_first],
    ],
)
def test_spikes_in_other_words(spike: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    net = stl.capture(Net(spike), torch.rand(12, 4, 6) * 2)
    (layer,) = net.proof.layers
    assert (layer.differing, net.proof.replay_differing, net.proof.end_to_end["differing"]) == (0, 0, 0)
    assert 0 < layer.rate < 1


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("spike", "reason"),
    [
        (lambda v: torch.heaviside(v - 0.6, torch.full((), 0.5)), "a Cell"),
        (lambda v: torch.sign(v - 0.6), "a Cell"),
        (lambda v: torch.isclose(v, torch.tensor(0.6)).float(), "a Cell"),
        (lambda v: ((0.6 - v) / 2 < 0).float(), "a Cell"),
    ],
)
def test_what_is_no_spike_is_refused(spike: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        stl.capture(Net(spike), torch.rand(12, 4, 6) * 2)


def test_the_threshold_of_a_quotient_is_the_float_at_which_it_fires() -> None:
    """v/θ - 1 >= 0 rounds: the smallest v that fires may lie beside θ, but the two comparisons agree on every float."""
    torch.manual_seed(0)
    net = stl.capture(Net(normalised), torch.rand(12, 4, 6) * 2)
    (neuron,) = net.program.spiking
    assert neuron.threshold is not None
    for step in range(-3, 4):
        v = torch.from_numpy(neuron.threshold + np.float32(step) * np.spacing(neuron.threshold))
        assert ((v / THETA - 1 >= 0).numpy() == (v.numpy() >= neuron.threshold)).all()


def net_with(end: Callable[[nn.Module, Tensor], Tensor]) -> Net:
    model = Net(where_numbers)
    model.end = lambda y: end(model.head, y)
    return model


@pytest.mark.parametrize(
    ("end", "readout"),
    [
        (lambda head, y: head(y.mean(0)), "mean over time"),
        (lambda head, y: head(y[-1]), "last over time"),
        (lambda head, y: functional.linear(y.sum(0), head.weight), "sum over time"),
        (lambda head, y: head(y.sum(0)), "last over time"),
        (lambda head, y: (2 * (1 - head(y.sum(0) * 0.25))).softmax(-1), "last over time, then softmax"),
        (lambda head, y: functional.log_softmax(head(y).max(0).values, dim=-1), "max over time, then log_softmax"),
        (lambda head, y: head(y).softmax(-1), "every step, then softmax"),
        (lambda head, y: head(y).softmax(-1).sum(0), "sum over time of each step's softmax"),
        (
            lambda head, y: sum(functional.log_softmax(head(s), -1) for s in y) / len(y),
            "mean over time of each step's log_softmax",
        ),
        (lambda head, y: head(y)[3:].softmax(-1).mean(0), "mean over time from step 3 on of each step's softmax"),
        (lambda head, y: functional.avg_pool1d(y.mean(0)[:, None], 4)[:, 0], "mean over time"),
        (lambda head, y: head(y.max(0).values), "last over time"),
        (lambda head, y: torch.tanh(head(y[-1])), "last over time"),
        (lambda head, y: functional.relu(head(y.sum(0)) - 1), "last over time"),
    ],
)
def test_what_is_done_after_the_last_step(end: Callable[[nn.Module, Tensor], Tensor], readout: str) -> None:
    torch.manual_seed(0)
    model, x = net_with(end), torch.rand(12, 4, 6) * 2
    net = stl.capture(model, x)
    assert str(net.readout) == readout
    np.testing.assert_allclose(net.simulate(x.numpy()).readout, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_an_actor_of_a_mean_over_its_own_steps_is_captured(tmp_path: Path) -> None:
    """A population of spikes, its mean over time, a decoder for each action and tanh (Tang et al. 2020)."""

    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.enter, self.decoder = nn.Linear(6, 8), nn.Conv1d(2, 2, 4, groups=2)

        def forward(self, x: Tensor) -> Tensor:
            v, total = torch.zeros(len(x), 8), torch.zeros(len(x), 8)
            for _ in range(5):
                v = 0.75 * v + self.enter(x)
                s = (v > 0.5).float()
                v = v * (1 - s)
                total = total + s
            return 0.5 * torch.tanh(self.decoder((total / 5).view(-1, 2, 4)).view(-1, 2))

    model, x = Actor(), 2 * torch.randn(7, 6)
    net = stl.capture(model, x, time="inside")
    net.export(tmp_path / "net.onnx")
    for each in (x, 3 * x[:4], torch.zeros(2, 6)):
        np.testing.assert_allclose(net.simulate(each.numpy()).readout, model(each).detach().numpy(), atol=1e-6)


def test_the_last_potential_of_our_own_integrator_is_read() -> None:
    model = net_with(lambda head, y: head(y))
    with_integrator = nn.Sequential(model, stl.LI(3, decay=0.75))

    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            potentials: Tensor = with_integrator(x)
            return potentials[-1]

    last = Last()
    last.inner = with_integrator
    x = torch.rand(12, 4, 6) * 2
    net = stl.capture(last, x)
    assert str(net.readout) == "last over time"
    np.testing.assert_allclose(net.simulate(x.numpy()).readout, last(x).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda head, y: head(y[3:].sum(0)), "adds a bias once, after a sum over time of some steps"),
        (lambda head, y: functional.relu(head(y.mean(0))), "after the last time step"),
    ],
)
def test_an_end_that_no_step_can_do_is_refused(end: Callable[[nn.Module, Tensor], Tensor], reason: str) -> None:
    with pytest.raises(CaptureError, match=rf"test_forms\.py:\d+: '\w+' .*{reason}"):
        stl.capture(net_with(end), torch.rand(12, 4, 6) * 2)


class Feedback(nn.Module):
    """The second layer's spikes inhibit the first without any weights between; unnamed neurons in one loop."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        v = u = y = torch.zeros(x.shape[1], 8)
        out = []
        for step in x:
            v = 0.9 * v + self.fc1(step) - y
            z = (v > 0.5).float()
            v = v - 0.5 * z
            u = 0.9 * u + self.fc2(z)
            y = (u > 0.3).float()
            u = u - 0.3 * y
            out.append(y)
        return torch.stack(out)


def test_weightless_feedback_into_another_neuron() -> None:
    torch.manual_seed(0)
    net = stl.capture(Feedback(), torch.rand(12, 4, 6) * 3)
    assert net.proof.end_to_end["differing"] == 0
    assert all(layer.rate > 0 for layer in net.proof.layers)
    assert [type(node) for node in net.program.nodes].count(Neuron) == 2


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros(x.shape[1], 8)
        out: list[Tensor] = []
        for t in range(x.shape[0]):
            v = 0.9 * v + self.fc(x[t])
            z = (v > 0.5).float()
            v = v - z
            out.append(z)
        return torch.stack(out)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # newer torch would rather not
def test_a_scripted_module_is_captured_and_stays_in_its_mode() -> None:
    model = torch.jit.script(Scripted())
    net = stl.capture(model, torch.rand(8, 3, 6) * 3)
    assert net.proof.layers[0].rate > 0
    assert model.training
    assert model.fc.training


class OwnNeuron(nn.Module):
    """One layer of neurons: ``step`` takes the potential and the current, and gives the next one and the output."""

    def __init__(self, step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], start: Tensor) -> None:
        super().__init__()
        self.fc, self.step, self.start = nn.Linear(6, 8), step, start

    def forward(self, x: Tensor) -> Tensor:
        v, out = self.start.expand(x.shape[1], 8), []
        for current in self.fc(x):
            v, z = self.step(v, current)
            out.append(z)
        return torch.stack(out)


def to_value(decay: float | Tensor, offset: float = 0.0, value: float = 0.0) -> Callable[..., tuple[Tensor, Tensor]]:
    """A leaky neuron that resets to ``value``."""

    def step(v: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        v = decay * v + current + offset
        z = (v > 0.4).float()
        return v * (1 - z) + value * z, z

    return step


def never_reset(v: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.9 * v + current
    return v, (v > 0.4).float()


def halved(v: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.9 * v + current
    z = (v > 0.4).float()
    return v * (1 - 0.5 * z), z


def reshaped(v: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.9 * v.view(-1, 2, 4).view(-1, 8) + current
    z = (v > 0.4).float()
    return (v.view(-1, 2, 4) * (1 - z.view(-1, 2, 4))).flatten(1), z


def both_read(v: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.9 * v + current
    return 0.5 * v, torch.cat([v, 0.5 * v], -1)


def kept_where_silent(v: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.9 * v + current
    z = v > 0.4
    return torch.where(~z, v, 0.0), z.float()


def doubles(v: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.5 * v + current.double()
    z = v / 0.3 > 1
    return v * ~z, z.float()


@pytest.mark.parametrize(
    ("step", "start"),
    [
        (never_reset, 0.0),
        (kept_where_silent, 0.0),
        (to_value(0.9, 0.05, -0.25), -0.25),
        (to_value(1.0), 0.0),
        (to_value(0.9), 0.3),
        (lambda v, current: (v + current, v + current), 0.0),
    ],
)
def test_a_neuron_of_ones_own(step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], start: float) -> None:
    torch.manual_seed(0)
    model, x = OwnNeuron(step, torch.tensor(start)).eval(), torch.rand(12, 4, 6)
    net = stl.capture(model, x)
    assert all(layer.differing == 0 and 0 < layer.rate < 1 for layer in net.proof.layers)
    np.testing.assert_allclose(net.simulate(x.numpy()).y, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_potential_that_spikes_let_through() -> None:
    torch.manual_seed(0)
    model = OwnNeuron(lambda v, current: (0.5 * v + current, ((0.5 * v + current) > 0.4) * v), torch.zeros(())).eval()
    net = stl.capture(model, torch.rand(12, 4, 6))
    assert [product.matrices for product in net.program.of(Product)] == [False]
    unseen = torch.rand(20, 3, 6, generator=torch.Generator().manual_seed(1)) * 2
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, model(unseen).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("neurons_alone")
def test_a_constant_on_a_potential_that_does_not_leak(tmp_path: Path) -> None:
    """NIR has no node for it; a .program file and ONNX hold it."""
    model = OwnNeuron(to_value(1.0, 0.05), torch.zeros(())).eval()
    net = stl.capture(model, torch.rand(12, 4, 6))
    unseen = torch.rand(20, 3, 6, generator=torch.Generator().manual_seed(1)) * 2
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, model(unseen).detach().numpy(), rtol=1e-5, atol=1e-6)
    net.export(tmp_path / "net.onnx")
    with pytest.raises(UnsupportedError) as refused:
        net.export(tmp_path / "net.nir")
    assert refused.value.node == "lif1"


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("step", "start", "reason"),
    [
        (
            to_value(torch.tensor([0.0, 0.5]).repeat(4)),
            torch.tensor(0.1),
            "a Cell",
        ),
        (doubles, torch.zeros((), dtype=torch.float64), "a Cell"),
        (halved, torch.zeros(()), "a Cell"),
        (reshaped, torch.zeros(()), "a Cell"),
        (both_read, torch.zeros(()), "a Cell"),
    ],
)
def test_a_neuron_of_ones_own_that_no_graph_holds(
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], start: Tensor, reason: str
) -> None:
    with pytest.raises(CaptureError, match=rf"^(test_forms\.py:\d+: .*)?{reason}"):
        stl.capture(OwnNeuron(step, start), torch.rand(12, 4, 6))


class LateWeights(nn.Module):
    """What comes back has gone through the weights a step ago already: one edge closes the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.back = nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        v = back = torch.zeros(x.shape[1], 8)
        out = []
        for current in self.fc(x):
            v = 0.9 * v + current + back
            z = (v > 0.4).float()
            v = v * (1 - z)
            back = self.back(z)
            out.append(z)
        return torch.stack(out)


def test_weights_that_are_read_a_step_late_close_their_loop() -> None:
    torch.manual_seed(0)
    net = stl.capture(LateWeights(), torch.rand(12, 4, 6))
    assert net.proof.end_to_end["differing"] == 0
    assert {(s.node, s.delay) for s in net.program.spiking[0].operands} == {("fc", 0), ("back", 1)}


class NeverLeaks(nn.Module):
    """Neurons that add up what arrives and lose their threshold with a spike, at once or a step late.

    The two resets compute the same, but for rounding. ``more`` makes what else arrives, of the net's second layer and
    of its own spikes a step ago; ``then``, of its own spikes, what is added behind the reset.
    """

    def __init__(
        self, more: Callable[..., Tensor], late: bool = False, then: Callable[..., Tensor] | None = None
    ) -> None:
        super().__init__()
        self.fc, self.fc2, self.back = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 8, bias=False)
        self.other, self.off = stl.LIF((8,), threshold=0.5), nn.Parameter(torch.zeros(()))
        self.more, self.late, self.then = more, late, then

    def forward(self, x: Tensor) -> Tensor:
        v = z = torch.zeros(x.shape[1], 8)
        out = []
        for current, second in zip(self.fc(x), self.fc2(x), strict=True):
            v = v + current + self.more(self, second, z)
            if self.late:
                v = v - 0.7 * z
            z = (v >= 0.7).float()
            if not self.late:
                v = v - 0.7 * z
            if self.then is not None:
                v = v + self.then(self, z)
            out.append(z)
        return torch.stack(out)


@pytest.mark.push(3)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("more", "then"),
    [
        (lambda net, second, z: net.off * second, None),
        (lambda net, second, z: net.off * net.back(z), None),
        (lambda net, second, z: 0.3 * net.back(z), None),
        (lambda net, second, z: 0.3 * second, None),
        (lambda net, second, z: 0.0, lambda net, z: 0.3 * net.back(z)),
    ],
    ids=["switched off", "own spikes switched off", "own spikes scaled", "scaled", "own spikes behind the reset"],
)
def test_a_neuron_that_never_leaks_is_read_in_its_own_order(
    more: Callable[..., Tensor], then: Callable[..., Tensor] | None, late: bool
) -> None:
    torch.manual_seed(0)
    model, x = NeverLeaks(more, late, then).eval(), torch.rand(40, 4, 6) * 2
    net = stl.capture(model, x)
    (neuron,) = net.program.spiking
    assert neuron.reset == ("subtract_delayed" if late else "subtract")
    assert 0 < net.proof.layers[0].rate < 1
    np.testing.assert_array_equal(net.simulate(x.numpy()).y, model(x).numpy())


def test_neurons_whose_spikes_count_for_nothing_are_left_out() -> None:
    torch.manual_seed(0)
    model, x = NeverLeaks(lambda net, second, z: net.off * net.other(second[None])[0]).eval(), torch.rand(12, 4, 6) * 2
    net = stl.capture(model, x)
    assert [node.name for node in net.program.nodes] == ["input", "fc", "lif1", "output"]
    np.testing.assert_array_equal(net.simulate(x.numpy()).y, model(x).numpy())


class StartsTwice(nn.Module):
    """Spikes that are a number 0 before the first step in one place, and as many zeros as neurons in another."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        currents = self.fc(x)
        v = torch.zeros_like(currents[0])
        number, array, out = torch.zeros(()), torch.zeros_like(v), []
        for current in currents:
            v = 0.5 * v + current - number - array
            number = array = (v > 0.2).float()
            out.append(array)
        return torch.stack(out)


def test_spikes_that_start_as_zeros_of_two_shapes() -> None:
    torch.manual_seed(0)
    model, x = StartsTwice().eval(), torch.rand(12, 4, 6)
    net = stl.capture(model, x)
    assert 0 < net.proof.layers[0].rate < 1
    unseen = torch.rand(9, 5, 6)
    np.testing.assert_array_equal(net.simulate(unseen.numpy()).y, model(unseen).numpy())


class CalledAsTheGraphIs(nn.Module):
    """Its modules have the names of the graph's own input and output."""

    def __init__(self) -> None:
        super().__init__()
        self.output, self.input = nn.Linear(6, 8), stl.LIF((8,), threshold=0.3)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.input(self.output(x))
        return spikes


def test_modules_that_are_called_input_and_output() -> None:
    torch.manual_seed(0)
    net = stl.capture(CalledAsTheGraphIs(), torch.rand(12, 4, 6) * 2)
    assert [node.name for node in net.program.nodes] == ["input", "linear1", "lif1", "output"]


class CalledAsTheProofIs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.arriving, self.arriving_ = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.arriving_((self.arriving(x) > 0.3).float())  # type: ignore[no-any-return]


def test_modules_that_are_called_as_the_proof_calls_what_arrives() -> None:
    torch.manual_seed(0)
    net = stl.capture(CalledAsTheProofIs(), torch.rand(12, 4, 6) * 2)
    assert {"arriving", "arriving_"} < {node.name for node in net.program.nodes}
    assert net.proof.end_to_end["differing"] == 0
    assert 0 < net.proof.layers[0].rate < 1


class NeverLeaking(nn.Module):
    """A synapse that adds up what arrives for ever."""

    def forward(self, x: Tensor) -> Tensor:
        v = current = torch.zeros_like(x[0])
        out = []
        for step in x:
            current = current + step
            v = 0.5 * v + current
            z = (v > 0.4).float()
            v = v * (1 - z)
            out.append(z)
        return torch.stack(out)


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize("neurons", [NeverLeaking(), OwnNeuron(to_value(torch.linspace(0.5, 1, 8)), torch.zeros(()))])
def test_states_that_do_not_decay_are_captured_and_refused_by_nir(neurons: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), neurons) if isinstance(neurons, NeverLeaking) else neurons
    net, unseen = stl.capture(model, torch.rand(12, 4, 6)), 3 * torch.rand(20, 3, 6)
    np.testing.assert_allclose(net.simulate(unseen.numpy()).y, model(unseen).detach().numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(UnsupportedError, match=r"never decays|has a decay of 1 beside others"):
        _ = net.graph


@pytest.mark.parametrize(
    ("x", "options", "kind", "reason"),
    [
        (
            torch.rand(12, 4, 6),
            {"time": "batch_first"},
            stl.InputError,
            r"time: expected 'first', 'second', .*; found 'batch_first' \(batch-first x \[B, T, ...\] is 'second'\)",
        ),
        (torch.rand(6), {}, CaptureError, r"x: expected at least 3 axes with time='first'; found \[6\]"),
    ],
)
def test_input_without_time(x: Tensor, options: dict[str, str], kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        stl.capture(Scripted(), x, **options)  # type: ignore[arg-type]


def test_input_in_float64_is_taken_as_the_model_computes() -> None:
    torch.manual_seed(0)
    net = stl.capture(Scripted(), np.random.default_rng(0).random((8, 3, 6)))
    assert net.sample is not None
    assert net.sample.dtype == np.float32


def test_a_layer_of_torch_is_named_without_a_line_of_ours() -> None:
    with pytest.raises(CaptureError, match=r"^'max_pool3d_with_indices' has no form .*\(in module '0', MaxPool3d\)"):
        stl.capture(nn.Sequential(nn.MaxPool3d(2), nn.Flatten()), torch.rand(8, 3, 1, 4, 4, 4), time="step")


class Counting(nn.Module):
    """What it computes depends on how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (x * self.calls > 1).float()


class Leftover(nn.Module):
    """Its potential stays from call to call, and nothing brings it to rest."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for step in x:
            self.v = 0.9 * self.v + step
            z = (self.v > 1).float()
            self.v = self.v * (1 - z)
            out.append(z)
        return torch.stack(out)


@pytest.mark.parametrize("model", [Counting(), Leftover()])
def test_a_module_that_does_something_else_the_next_time_is_refused(model: nn.Module) -> None:
    x = torch.rand(6, 3, 4)
    with pytest.raises(CaptureError, match="something else on the same input after another call"):
        stl.capture(model, x)


def test_reset_brings_leftover_state_to_rest() -> None:
    model, x = Leftover(), torch.rand(6, 3, 4)
    model(x)
    net = stl.capture(model, x, reset=lambda: setattr(model, "v", 0.0))
    assert net.proof.replay_differing == 0


def test_torchs_own_lazy_layers_are_refused_with_what_to_do() -> None:
    model, x = nn.Sequential(nn.LazyLinear(6), stl.LIF((6,), threshold=0.3)), torch.rand(6, 3, 4)
    with pytest.raises(CaptureError, match="has no shape yet; call the module once on x"):
        stl.capture(model, x)
    model(x)
    assert stl.capture(model, x).proof.replay_differing == 0


def test_thresholds_that_wait_for_a_first_batch_get_their_sizes() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6), stl.LIF(threshold=0.3), nn.Linear(6, 3), Snn()), torch.rand(6, 3, 4) * 3
    stl.learn_thresholds(model, granularity="neuron")
    net = stl.capture(model, x)
    assert [tuple(p.shape) for name, p in model.named_parameters() if "threshold" in name] == [(6,), (3,)]
    assert net.proof.end_to_end["differing"] == 0


class Snn(stl.LIF):
    """Of unknown size, as those of frameworks are."""

    def __init__(self) -> None:
        super().__init__(threshold=0.2)


class Loop(nn.Module):
    """Written so that TorchScript takes it, too."""

    def __init__(self, wrap: Any = lambda module: module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = wrap(nn.Linear(6, 5)), wrap(nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        v, w = torch.zeros(x.shape[1], 5), torch.zeros(x.shape[1], 3)
        out: list[Tensor] = []
        for t in range(x.shape[0]):
            v = 0.9 * v + self.fc1(x[t])
            s = (v > 0.5).float()
            v = v * (1 - s)
            w = 0.8 * w + self.fc2(s)
            z = (w > 0.2).float()
            w = w - z * 0.2
            out.append(z)
        return torch.stack(out)


class Tanh(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh()


class Rounded(nn.Module):
    """Options that no rule for signals reads."""

    def forward(self, weight: Tensor) -> Tensor:
        return torch.div(weight.round(decimals=2), 0.05, rounding_mode="floor") * 0.05


def _parametrised(module: nn.Module) -> nn.Module:
    parametrize.register_parametrization(module, "weight", Tanh())
    return module


def _rounded(module: nn.Module) -> nn.Module:
    parametrize.register_parametrization(module, "weight", Rounded())
    return module


def _pruned(module: nn.Module) -> nn.Module:
    prune.l1_unstructured(module, "weight", 0.3)
    return module


def _convolved(layer: nn.Linear) -> nn.Module:
    size = layer.in_features
    if size == 6:
        return layer
    return nn.Sequential(nn.Unflatten(1, (1, size)), nn.Conv1d(1, layer.out_features, size), nn.Flatten())


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "compiled": lambda: torch.compile(Loop()),
    "compiled twice": lambda: torch.compile(nn.Sequential(torch.compile(Loop()))),
    "scripted": lambda: torch.jit.script(Loop()),
    "traced": lambda: torch.jit.trace(Loop(), torch.rand(7, 4, 6)),
    "traced, with convolutions": lambda: torch.jit.trace(Loop(_convolved), torch.rand(7, 4, 6)),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(Loop().eval())),
    "parallel": lambda: nn.DataParallel(Loop()),
    "weight norm": lambda: Loop(parametrizations.weight_norm),
    "spectral norm": lambda: Loop(parametrizations.spectral_norm),
    "orthogonal": lambda: Loop(parametrizations.orthogonal),
    "a parametrisation of one's own": lambda: Loop(_parametrised),
    "rounded weights": lambda: Loop(_rounded),
    "pruned": lambda: Loop(_pruned),
}


@pytest.mark.push(4)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapped_module_is_the_module(wrap: Callable[[], nn.Module]) -> None:
    model, x = wrap(), torch.rand(7, 4, 6) * 2
    with torch.no_grad():
        expected = model(x) if not isinstance(model, torch._dynamo.OptimizedModule) else None
    net = stl.capture(model, x)
    assert net.proof.end_to_end["differing"] == 0
    if expected is not None:
        np.testing.assert_array_equal(net.simulate(x.numpy()).y, expected.numpy())
    if not isinstance(model, torch.jit.ScriptModule):
        names = [node.name.removeprefix("0.") for node in net.program.nodes]
        assert [name for name in names if name.startswith("fc")] == ["fc1", "fc2"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
class Kernel(nn.Module):
    """A neuron with SpikingJelly's names of backends (0.0.0.0.14); that of CuPy needs a GPU."""

    supported_backends = ("torch", "cupy")

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        if self.backend != "torch":
            raise RuntimeError("no GPU")
        v, spikes = torch.zeros_like(x[0]), []
        for x_t in x:
            v = 0.5 * v + x_t
            spikes.append((v > 0.7).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)


def test_kernels_of_another_library_run_in_torch_while_captured() -> None:
    model, x = Kernel("cupy"), torch.rand(8, 4, 3)
    net = stl.capture(model, x)
    assert net.program.digest() == stl.capture(Kernel("torch"), x).program.digest()
    assert model.backend == "cupy"


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch's own, as it compiles
def test_a_compiled_module_is_captured_uncompiled() -> None:
    model, x = Loop(), torch.rand(7, 4, 6) * 2
    net = stl.capture(torch.compile(model), x)
    assert net.name == "loop"
    assert net.original is not None
    assert net.original.model is model
    nested = torch.compile(nn.Sequential(torch.compile(model)))
    torch._dynamo.utils.counters.clear()
    stl.capture(nested, x)
    assert not torch._dynamo.utils.counters["frames"]  # each run would compile for minutes on a busy machine
    hooked = torch.compile(model)
    hooked.register_forward_hook(lambda module, inputs, output: output * 3)
    assert uncompiled(hooked) is hooked
