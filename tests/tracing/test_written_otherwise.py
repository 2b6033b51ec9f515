"""Models as people write them: monitors, delays, broadcasts, bounds, potentials and paddings, held on unseen input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.graph.program import Neuron
from tests.tracing.held import require_cell


class Net(nn.Module):
    """Layers, and a forward given as a function."""

    def __init__(self, body: Callable[[Net, Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(6, 8), nn.Linear(8, 4)
        self.taps = nn.Conv1d(6, 8, 3)
        self.own_taps = nn.Conv1d(6, 6, 4, groups=6, bias=False)
        self.image = nn.Conv2d(2, 3, 3, padding=1)
        self.round_image = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")
        self.body = body

    def forward(self, x: Tensor) -> object:
        return self.body(self, x)


def spikes(currents: Tensor, potential: Callable[[Tensor], Tensor] = lambda v: v) -> Tensor:
    found, v = [], torch.zeros_like(currents[0])
    for current in currents:
        v = potential(0.8 * v + current)
        s = (v > 0.5).float()
        v = v - 0.5 * s
        found.append(s)
    return torch.stack(found)


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def require_same(model: nn.Module, x: Tensor, *unseen: Tensor, time: str = "first") -> stl.SpikingGraph:
    """Capture on x, then hold the graph against the module on other input."""
    net = stl.capture(model, x, time=time)  # type: ignore[arg-type]
    for given in (x, *unseen):
        made = model.eval()(given.clone())
        expected = (made[0] if isinstance(made, tuple) else made).detach().numpy()
        run = net.simulate(given.numpy())
        found = run.readout if net.readout.over_time else run.y
        found = found.swapaxes(0, 1) if time == "second" and not net.readout.over_time else found
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    return net


def delayed_by_channel(x: Tensor) -> Tensor:
    padded = functional.pad(x, (0, 0, 0, 0, 3, 0))
    return torch.stack([padded[3 - d : 3 - d + x.shape[0], :, c] for c, d in enumerate((0, 1, 2, 3, 1, 0))], -1)


def overwritten(x: Tensor) -> Tensor:
    y = x.clone()
    y[..., 2] = 0
    y[..., 3:5] *= 2
    y[..., 0] = x[..., 5]
    return y


def shifted(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[..., 1:] = x[..., :-1]
    return y


def of_taps(net: Net, x: Tensor, **options: int) -> Tensor:
    return functional.conv1d(x.permute(1, 2, 0), net.taps.weight, net.taps.bias, **options)  # type: ignore[call-overload,no-any-return]


BODIES: dict[str, Callable[[Net, Tensor], object]] = {
    "a rate beside the output": lambda net, x: (net.leave(s := spikes(net.enter(x))), s.mean()),
    "a count beside the output": lambda net, x: (net.leave(s := spikes(net.enter(x))), s.cumsum(0), s.std()),
    "a causal convolution": lambda net, x: spikes(
        net.taps(functional.pad(x.permute(1, 2, 0), (2, 0))).permute(2, 0, 1)
    ),
    "one cut to the steps": lambda net, x: spikes(of_taps(net, x, padding=2)[..., :-2].permute(2, 0, 1)),
    "one with dilation": lambda net, x: spikes(of_taps(net, x, padding=4, dilation=2)[..., :-4].permute(2, 0, 1)),
    "one of each channel": lambda net, x: spikes(
        net.enter(net.own_taps(functional.pad(x.permute(1, 2, 0), (3, 0))).permute(2, 0, 1))
    ),
    "one of spikes": lambda net, x: spikes(
        of_taps(net, functional.pad(spikes(3 * x - 1), (0, 0, 0, 0, 2, 0))).permute(2, 0, 1)
    ),
    "a delay of each channel": lambda net, x: net.leave(spikes(net.enter(delayed_by_channel(x)))),
    "a stack of channels": lambda net, x: net.leave(spikes(net.enter(torch.stack(x.unbind(-1)[::-1], -1)))),
    "a product of many and one": lambda net, x: net.leave((s := spikes(net.enter(x) + 0.4)) * s[..., 5:6]),
    "a sum of many and one": lambda net, x: spikes((h := net.enter(x)) * torch.arange(8) - h[..., :1]),
    "the larger of many and one": lambda net, x: net.leave(torch.maximum(s := spikes(net.enter(x)), s[..., 3:4])),
    "one channel times many": lambda net, x: spikes(net.enter(x)[..., :1] * torch.arange(8) / 8 + 0.4),
    "a scaled product": lambda net, x: spikes(
        torch.stack([torch.addmm(net.enter.bias, t, net.enter.weight.T, alpha=0.5, beta=2.0) for t in x])
    ),
    "writes into slices": lambda net, x: net.leave(spikes(net.enter(overwritten(x)))),
    "a shift by a slice": lambda net, x: net.leave(spikes(net.enter(shifted(x)))),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_captured(name: str) -> None:
    require_same(Net(BODIES[name]), numbers(8, 4, 6), 1.3 * numbers(9, 2, 6, seed=2) - 0.1)


IMAGES: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "circular padding": lambda net, x: net.round_image(x),
    "bilinear": lambda net, x: functional.interpolate(net.image(x), scale_factor=2, mode="bilinear"),
    "bicubic": lambda net, x: functional.interpolate(net.image(x), size=(5, 9), mode="bicubic"),
    "average of what is there": lambda net, x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average with ceil mode": lambda net, x: functional.avg_pool2d(x, 3, 2, ceil_mode=True),
    "a bias of each pixel": lambda net, x: net.image(x)[:, :1] * torch.arange(3.0).view(3, 1, 1) + 0.3,
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_captured(name: str) -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        return spikes(IMAGES[name](net, x.flatten(0, 1)).unflatten(0, x.shape[:2]))

    require_same(Net(body), numbers(5, 3, 2, 8, 8), 1.3 * numbers(6, 2, 2, 8, 8, seed=2) - 0.1)


def test_a_causal_convolution_where_samples_come_first() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        currents = net.taps(functional.pad(x.transpose(1, 2), (2, 0))).permute(2, 0, 1)
        return spikes(currents).transpose(0, 1)

    require_same(Net(body), numbers(3, 9, 6), numbers(2, 7, 6, seed=2), time="second")


def test_single_steps_split_off_and_a_biased_layer_behind_their_mean() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        v, count = torch.zeros(len(x), 8), torch.zeros(len(x), 8)
        for part in x.split(1, 1):
            v = 0.8 * v + net.enter(part.squeeze(1))
            s = (v > 0.5).float()
            v, count = v - 0.5 * s, count + s
        return net.leave(count / x.size(1))

    net = require_same(Net(body), numbers(3, 9, 6), numbers(2, 7, 6, seed=2), time="second")
    assert net.readout.over_time == "mean"


class Framed(nn.Module):
    """Padding on two axes by a write into zeros, which becomes one matrix with the convolution behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.conv.weight.data.mul_(64).round_().div_(64)
        self.conv.bias.data.mul_(64).round_().div_(64)

    def forward(self, x: Tensor) -> Tensor:
        frame = torch.zeros(*x.shape[:2], 2, 10, 10)
        frame[..., 1:-1, 1:-1] = x
        return spikes(self.conv(frame.flatten(0, 1)).unflatten(0, x.shape[:2]))


def test_padding_by_a_write_on_two_axes_is_captured() -> None:
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Framed()
    net = stl.capture(model, (torch.rand(6, 3, 2, 8, 8, generator=draw) < 0.3).float())
    x = (torch.rand(9, 2, 2, 8, 8, generator=draw) < 0.6).float()
    with torch.no_grad():
        expected = model(x).numpy()
    assert 0.01 < expected.mean() < 0.99
    np.testing.assert_array_equal(net.simulate(x).y.reshape(expected.shape), expected)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "a tensor less the potential": lambda v: (torch.tensor(0.5) - v < 0).float(),
    "a number less the potential": lambda v: (0.5 - v <= 0).float(),
    "below": lambda v: 1 - (0.5 - v > 0).float(),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_threshold_less_the_potential_is_compared_with_0(name: str) -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        found, v = [], torch.zeros(x.shape[1], 8)
        for current in net.enter(x):
            v = 0.8 * v + current
            s = FORMS[name](v)
            v = v * (1 - s)
            found.append(s)
        return net.leave(torch.stack(found))

    require_same(Net(body), numbers(8, 4, 6), 1.5 * numbers(9, 2, 6, seed=2) - 0.2)


REMEDIES: dict[str, tuple[Callable[[Net, Tensor], object], str]] = {
    "sparse weights": (
        lambda net, x: spikes(torch.stack([torch.sparse.mm(net.enter.weight.to_sparse(), t.T).T for t in x])),
        "keep them dense",
    ),
    "a sparse matrix that is no parameter": (
        lambda net, x: spikes(torch.stack([torch.mm(torch.eye(6).to_sparse(), t.T).T for t in x])),
        "'mm' reads a sparse tensor; a graph holds all weights: keep them dense",
    ),
    "a sparse matrix's transpose": (
        lambda net, x: spikes(torch.stack([t @ torch.eye(6).to_sparse().t() for t in x])),
        "'t' reads a sparse tensor; a graph holds all weights: keep them dense",
    ),
    "the first spike": (
        lambda net, x: (spikes(net.enter(x)) > 0).float().argmax(0),
        r"at the end \(the decision, the first spike\) return every step, \[T, B, ...\]",
    ),
    "a median": (lambda net, x: spikes(net.enter(x)).median(0).values, "return what it reads, .* at every step"),
    "steps left out": (
        lambda net, x: spikes(net.enter(x))[::3],
        "return .* one for each step, and leave steps out after",
    ),
    "a bias once": (
        lambda net, x: net.leave(spikes(net.enter(x))[3:].sum(0)),
        "take the mean in place of the sum",
    ),
    "the first spike by a minimum": (
        lambda net, x: torch.where(spikes(net.enter(x)) > 0, torch.arange(len(x)).view(-1, 1, 1), len(x)).amin(0),
        r"unsupported readout over time: 'amin'; return what it reads, \[T, B, ...\] at every step",
    ),
    "steps shown twice": (
        lambda net, x: spikes(net.enter(x.repeat_interleave(2, 0))),
        r"repeat them before, x\.repeat_interleave\(2, 0\)",
    ),
    "steps repeated": (lambda net, x: spikes(net.enter(x.repeat(2, 1, 1))), "a graph runs once for each step of x"),
    "a ReLU6": (lambda net, x: spikes(net.enter(x).clamp(0, 6)), "put a spiking neuron, or a ReLU, in its place"),
    "rounded input": (lambda net, x: spikes(net.enter(torch.round(x * 9) / 9)), "a Cell"),
}


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize("name", REMEDIES)
def test_a_refusal_says_what_to_change(name: str) -> None:
    body, remedy = REMEDIES[name]
    with pytest.raises(CaptureError, match=rf"^test_written_otherwise\.py:\d+: .*{remedy}"):
        stl.capture(Net(body), numbers(8, 4, 6))


def test_the_remedy_for_the_first_spike_leads_on() -> None:
    model, x = Net(lambda net, x: spikes(net.enter(x))), numbers(8, 4, 6)
    y = stl.capture(model, x).simulate(x.numpy()).y
    first = np.where((y > 0).any(0), (y > 0).argmax(0), len(y))
    own = model(x).detach() > 0
    np.testing.assert_array_equal(first, torch.where(own.any(0), own.float().argmax(0), len(x)).numpy())


@pytest.mark.parametrize("padding", [(0, 2), (1, 1)])
def test_a_convolution_that_reads_later_steps_is_refused(padding: tuple[int, int]) -> None:
    model = Net(lambda net, x: spikes(net.taps(functional.pad(x.permute(1, 2, 0), padding)).permute(2, 0, 1)))
    with pytest.raises(CaptureError, match="a convolution over time reads steps after its own"):
        stl.capture(model, numbers(8, 4, 6))


BOUNDS: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda v: v.clamp(min=-0.2),
    "relu": torch.relu,
    "maximum": lambda v: torch.maximum(torch.tensor(-0.1), v),
    "far": lambda v: v.clamp_min(-1000.0),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_lower_bound_of_the_potential_is_captured(name: str) -> None:
    model = Net(lambda net, x: spikes(net.enter(x), BOUNDS[name]))
    net = require_same(model, numbers(8, 4, 6), 1.5 * numbers(9, 2, 6, seed=2) - 1)
    (neuron,) = (node for node in net.program.nodes if isinstance(node, Neuron))
    assert neuron.v_min is not None
    np.testing.assert_allclose(neuron.v_min, BOUNDS[name](torch.tensor(-5000.0)).numpy())


def clipped(currents: Tensor, left: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    found, v = [], torch.zeros_like(currents[0])
    for current in currents:
        v = 0.8 * v + current
        s = (v > 0.5).float()
        v = left(v, s)
        found.append(s)
    return torch.stack(found)


@pytest.mark.parametrize(
    ("left", "bound"),
    [
        (lambda v, s: (v - 0.5 * s).clamp(min=0.0), 0.0),
        (lambda v, s: functional.relu(v - 0.5 * s), 0.0),
        (lambda v, s: (v * (1 - s)).clamp_min(-0.2), -0.2),
        (lambda v, s: torch.where(s > 0, 0.3, v).clamp(min=-0.1), -0.1),
    ],
)
def test_a_lower_bound_behind_the_reset_is_captured(left: Callable[[Tensor, Tensor], Tensor], bound: float) -> None:
    model = Net(lambda net, x: net.leave(clipped(net.enter(x), left)))
    net = require_same(model, numbers(8, 4, 6), 1.5 * numbers(9, 2, 6, seed=2) - 1, 3 - 5 * numbers(20, 2, 6, seed=3))
    (neuron,) = (node for node in net.program.nodes if isinstance(node, Neuron))
    assert neuron.v_min is not None
    assert float(neuron.v_min) == pytest.approx(bound)


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    "left",
    [
        lambda v, s: (v - 0.5 * s).clamp(min=0.1),
        lambda v, s: torch.where(s > 0, -0.5, v).clamp(min=-0.1),
        lambda v, s: 0.8 * (v - 0.5 * s).clamp(min=-0.1) + 0.2 * (v - 0.5 * s),
        lambda v, s: (v - 0.5 * s).clamp(-0.1, 5.0),
    ],
    ids=["above what a spike leaves", "above the reset", "of a part", "from both sides"],
)
def test_a_bound_behind_the_reset_that_no_bound_before_it_replaces_is_refused(
    left: Callable[[Tensor, Tensor], Tensor],
) -> None:
    with pytest.raises(CaptureError, match="a Cell"):
        stl.capture(Net(lambda net, x: net.leave(clipped(net.enter(x), left))), numbers(8, 4, 6))


def test_a_lower_bound_keeps_thresholds_out_of_the_weights() -> None:
    net = stl.capture(Net(lambda net, x: spikes(net.enter(x), BOUNDS["clamp"])), numbers(8, 4, 6))
    with pytest.raises(UnsupportedError, match=r"its potential is bounded below by -0\.2; export it as it is to ONNX"):
        net.fold(thresholds="weights")


def test_thresholds_below_0_are_kept_out_of_the_weights() -> None:
    net = stl.capture(Net(lambda net, x: net.leave((net.enter(x) > -0.25).float())), numbers(8, 4, 6))
    with pytest.raises(
        UnsupportedError, match=r"the lowest of them, -0\.25, is not above 0; export it as it is to ONNX"
    ):
        net.fold(thresholds="weights")


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    "bound", [lambda v: v.clamp(max=2.0), lambda v: v.clamp(-1, 2), lambda v: 2 * v.clamp(min=-0.1)]
)
def test_another_bound_is_refused(bound: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CaptureError, match="a Cell"):
        stl.capture(Net(lambda net, x: spikes(net.enter(x), bound)), numbers(8, 4, 6))


def test_the_potential_of_a_neuron_that_fires_at_its_threshold_is_captured() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        found, v = [], torch.zeros(x.shape[1], 8)
        for current in net.enter(x):
            v = 0.8 * v + current
            found.append(v)
            v = v - 0.5 * (v >= 0.5).float()
        return torch.stack(found)

    require_same(Net(body), numbers(8, 4, 6), 1.5 * numbers(9, 2, 6, seed=2) - 0.2)


def potentials(currents: Tensor, reset: str, *, before: bool) -> Tensor:
    found, v, s = [], torch.zeros_like(currents[0]), torch.zeros_like(currents[0])
    for current in currents:
        v = 0.8 * v + current - (0.5 * s if reset == "late" else 0)
        s = (v > 0.5).float()
        kept = v
        v = v - 0.5 * s if reset == "at once" else v * (1 - s) if reset == "to 0" else v
        found.append(kept if before else v)
    return torch.stack(found)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("reset", ["late", "at once", "none"])
def test_the_potential_of_a_spiking_neuron_is_captured(reset: str, before: bool) -> None:
    model = Net(lambda net, x: net.leave(potentials(net.enter(x), reset, before=before)))
    require_same(model, numbers(8, 4, 6), 1.5 * numbers(9, 2, 6, seed=2) - 0.2)


def test_the_potential_of_a_neuron_that_resets_to_a_value_is_a_cells() -> None:
    model = Net(lambda net, x: potentials(net.enter(x), "to 0", before=True))
    require_cell(model, numbers(8, 4, 6), numbers(9, 3, 6, seed=2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(4).to_sparse(),
        lambda: torch.empty(3, device="meta"),
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ],
    ids=["sparse", "meta", "nested"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_a_tensor_of_another_layout_beside_the_model_is_left_alone(make: Callable[[], Tensor]) -> None:
    model = Net(lambda net, x: net.leave(spikes(net.enter(x))))
    model.beside = kept = make()
    require_same(model, numbers(8, 4, 6))
    assert model.beside is kept
