"""What a run on x does not show of a module is refused, or captured as it is on input that capture never saw."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.graph.program import Neuron
from stl_deploy.graph.run import Result, run
from stl_deploy.tracing.proof import layers_and_ends

Step = Callable[[Tensor, Tensor], Tensor]
"""The potential of a current and of what was left of the potential."""


class Net(nn.Module):
    """6 inputs, 8 spiking neurons whose potential is ``step``'s, 4 linear outputs; ``body`` is done to what spikes."""

    def __init__(
        self, step: Step = lambda current, v: 0.5 * v + current, rest: float = 0.0, body: Any = lambda net, s: s
    ) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 8), nn.Linear(8, 4)
        self.step, self.rest, self.body = step, rest, body

    def spikes(self, currents: Tensor) -> Tensor:
        v, found = torch.zeros_like(currents[0]), []
        for current in currents:
            v = self.step(current, v)
            spikes = (v > 0.3).float()
            v = torch.where(spikes.bool(), torch.full_like(v, self.rest), v)
            found.append(spikes)
        return torch.stack(found)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.leave(self.body(self, self.spikes(self.enter(x))))
        return found


class Other(Net):
    """A net with a forward of its own, in a function."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.own = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def require_same(model: nn.Module, x: Tensor, *unseen: Tensor, **options: Any) -> Any:
    """Capture on x, then hold the graph against the module on x and on input that capture never saw."""
    net = stl.capture(model, x, **options)
    for given in (x, *unseen):
        expected = model.eval()(given.clone()).detach().float().numpy()
        found = net.simulate(given.numpy()).y
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    return net


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize("bound", [1.0, 1000.0])
def test_a_bound_that_no_potential_comes_near_is_refused(bound: float) -> None:
    torch.manual_seed(0)
    model = Net(lambda current, v: (0.9 * v + current).clamp(max=bound))
    with pytest.raises(CaptureError, match="a Cell"):
        stl.capture(model, torch.rand(6, 4, 6))


def test_a_bend_near_0_is_kept() -> None:
    torch.manual_seed(0)
    model = Net(lambda current, v: nn.functional.hardshrink(0.9 * v, 0.01) + current)
    require_same(model, torch.rand(6, 4, 6), 0.01 * torch.rand(9, 2, 6))


def test_a_potential_that_starts_at_0_and_leaks_elsewhere_starts_at_0() -> None:
    torch.manual_seed(0)
    require_same(Net(lambda current, v: v + (current - (v + 0.2)) / 2, -0.2), torch.rand(6, 4, 6), torch.rand(9, 2, 6))


def x_of(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: 2 * Net.forward(net, x) if x.shape[0] > 6 else Net.forward(net, x),
        lambda net, x: 2 * Net.forward(net, x) if x.shape[0] in (3, 5, 7, 9, 11) else Net.forward(net, x),
        lambda net, x: 2 * Net.forward(net, x) if x.shape[1] > 3 else Net.forward(net, x),
        lambda net, x: 2 * Net.forward(net, x) if x.shape[1] > 4 else Net.forward(net, x),
    ],
    ids=["steps", "an odd number of steps", "samples of x", "samples"],
)
def test_a_branch_on_a_shape_is_refused(forward: Callable[[Net, Tensor], Tensor]) -> None:
    with pytest.raises(
        CaptureError,
        match=r"computes something else on .*; does a branch depend on .*the input's shape|another number of",
    ):
        stl.capture(Other(forward), x_of(6, 4, 6))


@pytest.mark.parametrize(
    "body",
    [
        lambda net, s: s.flip(2),
        lambda net, s: s.roll(3, 2),
        lambda net, s: s.roll((1, -2), (-1, 2)),
        lambda net, s: s[:, :, [7, 6, 2, 2, 0, 1, -1, 3]],
        lambda net, s: s[..., torch.tensor([0, 0, 1, 1, 2, 2, 3, 4])],
        lambda net, s: s.index_select(2, torch.arange(7, -1, -1)),
        lambda net, s: torch.stack([step[:, [1, 0, 2, 3, 4, 5, 7, 6]] for step in s]),
        lambda net, s: nn.functional.pad(s[..., torch.arange(8) > 3], (0, 4)),
        lambda net, s: s.unflatten(2, (2, 4)).flip((2, 3)).flatten(2),
    ],
)
def test_channels_at_places_that_stay_the_same_are_captured(body: Any) -> None:
    torch.manual_seed(0)
    require_same(Net(body=body), x_of(6, 4, 6), x_of(9, 2, 6, seed=2))


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda net, s: s.flip(0), "'flip' moves time steps or samples"),
        (lambda net, s: s.roll(1, (0)), "'roll' moves time steps or samples; .* delay by F.pad"),
        (lambda net, s: s.roll(1), "'roll' moves time steps or samples"),
        (lambda net, s: s[:, [1, 0, 2]], "'index' moves time steps or samples"),
        (lambda net, s: s.masked_fill(torch.arange(8) > 4, 0), "a Cell"),
        (lambda net, s: s[:1].expand_as(s), "one time step is repeated over the others"),
    ],
)
def test_what_moves_steps_or_samples_is_refused(body: Any, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        stl.capture(Net(body=body), x_of(6, 3, 6))


@pytest.mark.parametrize("time", ["first", "step"])
def test_a_module_that_writes_into_its_input_is_captured_and_x_stays(time: Any) -> None:
    torch.manual_seed(0)
    model = Other(lambda net, x: Net.forward(net, x.mul_(0.5))) if time == "first" else Halves()
    x = x_of(6, 4, 6)
    given = x.clone()
    net = stl.capture(model, given, time=time)
    assert torch.equal(given, x)
    expected = model(x.clone()) if time == "first" else torch.stack([model(step) for step in x.clone()])
    np.testing.assert_allclose(net.simulate(given.numpy()).y, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, step: Tensor) -> Tensor:
        found: Tensor = self.fc(step.mul_(0.5))
        return found


@pytest.mark.parametrize("sizes", [(5, 1, 1), (5, 3, 1), (5, 1, 6)])
def test_one_sample_of_one_channel_is_captured(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Net()
    model.enter = nn.Linear(sizes[-1], 8)
    require_same(model, x_of(*sizes), x_of(7, 4, sizes[-1], seed=2))


def test_one_image_of_one_channel_is_captured() -> None:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.neurons = nn.Conv2d(1, 3, 3), Net()

        def forward(self, x: Tensor) -> Tensor:
            return self.neurons.spikes(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))

    torch.manual_seed(0)
    require_same(Images(), x_of(4, 1, 1, 5, 5), x_of(6, 2, 1, 5, 5, seed=2))


class Shown(nn.Module):
    """An image shown at four steps, all of which are convolved at once; its potentials are returned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        shown = image.expand(4, *image.shape)
        v, potentials = torch.zeros(1), []
        for current in self.conv(shown.flatten(0, 1)).unflatten(0, shown.shape[:2]):
            v = 0.5 * v + current
            v = v - 0.3 * (v >= 0.3).float()
            potentials.append(v)
        return torch.stack(potentials)


def test_an_image_convolved_for_all_steps_at_once_is_captured() -> None:
    """Kernels round one image otherwise than four, so that the proof runs them on as many as the module."""
    torch.manual_seed(0)
    proof = stl.capture(Shown(), torch.rand(2, 3, 16, 16), time="inside", progress=False).proof
    assert proof is not None
    assert "1 sample" in proof.runs
    assert proof.replay_differing == 0


@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.uint8])
def test_an_input_that_the_model_makes_integers_has_to_be_whole(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Other(lambda net, x: Net.forward(net, x.to(kind).float()))
    name = str(kind).removeprefix("torch.")
    with pytest.raises(CaptureError, match=rf"test_unseen\.py:\d+: the model makes its input {name}, which changes x"):
        stl.capture(model, x_of(6, 4, 6))
    whole = (x_of(6, 4, 6) > 1).float()
    with pytest.warns(UserWarning, match=f"the model makes its input {name}, which leaves x as it is"):
        net = stl.capture(model, whole)
    np.testing.assert_allclose(net.simulate(whole.numpy()).y, model(whole).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_model_under_autocast_is_refused_by_what_it_computes_in() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return Net.forward(net, x).float()

    torch.manual_seed(0)
    with pytest.raises(CaptureError, match="the model computes in bfloat16, whose rounding no float32 graph has"):
        stl.capture(Other(forward), x_of(6, 40, 6))


def late(values: Tensor, steps: int = 1) -> Tensor:
    """Each step's values ``steps`` later."""
    return torch.cat([torch.zeros_like(values[:steps]), values[:-steps]])


def listed(values: Tensor) -> Tensor:
    """The same two steps late, through a list."""
    waiting, found = [torch.zeros_like(values[0])] * 2, []
    for value in values:
        waiting.append(value)
        found.append(waiting.pop(0))
    return torch.stack(found)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.spikes(net.enter(late(x))),
        lambda net, x: net.spikes(net.enter(late(x, 2))),
        lambda net, x: net.spikes(net.leave(late(net.spikes(net.enter(x))))),
        lambda net, x: net.spikes(net.leave(listed(net.spikes(net.enter(x))))),
        lambda net, x: net.spikes(net.leave(net.spikes(net.enter(x)) + late(net.spikes(net.enter(x))))),
    ],
)
def test_a_layer_with_a_bias_behind_a_delay_gives_its_bias_from_the_first_step_on(
    forward: Callable[[Net, Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    require_same(Other(forward), x_of(6, 4, 6), x_of(9, 2, 6, seed=2))


def test_spikes_of_a_bias_behind_a_delay_in_a_loop() -> None:
    def loop(net: Net, x: Tensor) -> Tensor:
        v = u = torch.zeros(x.shape[1], 8)
        before, found = torch.zeros(x.shape[1], 8), []
        for step in x:
            u = 0.5 * u + net.again(before)
            found.append((u > 0.3).float())
            u = u - 0.3 * found[-1]
            v = 0.5 * v + net.enter(step)
            before = (v > 0.3).float()
            v = v * (1 - before)
        return torch.stack(found)

    torch.manual_seed(0)
    model = Other(loop)
    model.again = nn.Linear(8, 8)
    nn.init.uniform_(model.again.bias, 0.5, 1)
    require_same(model, x_of(6, 4, 6), x_of(9, 2, 6, seed=2))


def test_a_mean_over_steps_behind_a_loop_that_reads_the_step_before() -> None:
    """In a run of one step the output is made of constants, of one sample."""

    def forward(net: Net, x: Tensor) -> Tensor:
        v = u = torch.zeros(x.shape[1], 8)
        before, found = torch.zeros(x.shape[1], 8), []
        for step in x:
            u = 0.5 * u + net.again(before)
            found.append((u > 0.3).float())
            u = u - 0.3 * found[-1]
            v = 0.5 * v + net.enter(step)
            before = (v > 0.3).float()
            v = v - 0.3 * before
        return torch.stack(found).mean(0)

    torch.manual_seed(0)
    model = Other(forward)
    model.again = nn.Linear(8, 8, bias=False)
    net = stl.capture(model, x_of(6, 4, 6))
    for unseen in (x_of(1, 4, 6), x_of(9, 2, 6, seed=2)):
        np.testing.assert_allclose(net.simulate(unseen.numpy()).readout, model(unseen).detach(), atol=1e-6)


def test_two_states_and_a_current_are_compared_with_a_threshold() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        v = u = torch.zeros(x.shape[1], 8)
        found = []
        for step in x:
            v, u = 0.5 * v + net.enter(step), 0.9 * u + net.slow(step)
            found.append((v - u + net.fast(step) > 0.3).float())
        return net.leave(torch.stack(found))

    torch.manual_seed(0)
    model = Other(forward)
    model.slow, model.fast = nn.Linear(6, 8), nn.Linear(6, 8)
    require_same(model, x_of(6, 4, 6), x_of(9, 2, 6, seed=2))


def test_a_convolution_and_a_norm_behind_a_delay() -> None:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.neurons = nn.Conv2d(2, 3, 3, stride=2), nn.BatchNorm2d(3), Net()
            nn.init.uniform_(self.norm.bias)

        def forward(self, x: Tensor) -> Tensor:
            currents = self.norm(self.conv(late(x).flatten(0, 1))).unflatten(0, x.shape[:2])
            return self.neurons.spikes(currents)

    torch.manual_seed(0)
    require_same(Images(), x_of(5, 2, 2, 5, 5), x_of(6, 3, 2, 5, 5, seed=2))


@pytest.mark.parametrize(
    "body",
    [
        lambda net, s: nn.functional.pad(torch.maximum(s[..., :4], s[..., 4:]), (0, 4)),
        lambda net, s: torch.maximum(s, s[..., :1].expand_as(s)),
        lambda net, s: s * (1 - s[..., 3:4].expand_as(s)),
    ],
)
def test_parts_of_spikes_are_spikes_that_are_joined(body: Any) -> None:
    torch.manual_seed(0)
    require_same(Net(body=body), x_of(6, 4, 6), x_of(9, 2, 6, seed=2))


def test_spikes_in_two_orders_are_joined_without_a_nir_graph() -> None:
    torch.manual_seed(0)
    net = require_same(Net(body=lambda net, s: torch.maximum(s, s.roll(1, 2))), x_of(6, 4, 6), x_of(9, 2, 6, seed=2))
    with pytest.raises(UnsupportedError, match="nir takes no Gather"):
        _ = net.graph


def test_a_decay_above_1_is_captured_and_refused_by_nir() -> None:
    net = require_same(Net(lambda current, v: 1.2 * v + current), x_of(6, 3, 6), x_of(9, 2, 6, seed=2))
    assert net.program.spiking[0].decay == np.float32(1.2)
    with pytest.raises(
        UnsupportedError, match=r"has a decay of 1\.2; NIR's leaky neurons need one below 1: decay.clamp\(max=0.999\)"
    ):
        _ = net.graph
    for target in ("c", "netx", "verilog", "xylo"):
        assert not net.check(target).ok


@pytest.mark.parametrize(
    "fires",
    [
        lambda v: v >= float("inf"),
        lambda v: float("inf") <= v,
        lambda v: v < torch.tensor(-torch.inf),
        lambda v: ~(v != torch.inf),
        lambda v: v - float("inf") >= 0,
        lambda v: (v - torch.tensor(torch.inf)) / 2 > 0,
    ],
)
def test_a_threshold_of_infinity_makes_a_readout(fires: Callable[[Tensor], Tensor]) -> None:
    class Readout(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros_like(x[0]), []
            for current in x:
                v = 0.5 * v + current
                v = v * (1 - fires(v).float())
                out.append(v)
            return torch.stack(out)

    model = nn.Sequential(nn.Linear(6, 8), stl.LIF((8,)), nn.Linear(8, 3), Readout())
    net = require_same(model, 3 * x_of(6, 3, 6), x_of(9, 2, 6, seed=2))
    assert [node.threshold is None for node in net.program.of(Neuron)] == [False, True]


def test_potentials_of_a_single_step_that_never_fire_are_what_arrives() -> None:
    """StereoSpike's depth: one integrator with a threshold of infinity adds up what several layers send it."""

    class Depth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            v = 0.0
            spikes = (self.first(x) - 0.1 >= 0).float()
            for layer in (self.second, self.third):
                v = v + layer(spikes)
                fires = (v - float("inf") >= 0).to(x)
                v = (1.0 - fires) * v + 0.0 * fires
            return v

    model, x = Depth(), x_of(1, 5, 6)[0]
    net = stl.capture(model, x, time="none")
    assert np.allclose(net.simulate(x.numpy()).y.reshape(5, 3), model(x).detach(), atol=1e-6)


def test_outputs_on_x_that_a_tie_moves_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums that round otherwise may make sign(v - 0.5) 0 in the model and 1 in a graph's Cell."""

    def moved(*args: Any, **options: Any) -> Result:
        made = run(*args, **options)
        made.y[2, 1, 0] += 0.5 * np.abs(made.y).max()
        return made

    monkeypatch.setattr(layers_and_ends, "run", moved)
    with pytest.warns(UserWarning, match="1 value of the output on x: not the model's"):
        net = stl.capture(Net(), x_of(6, 3, 6))
    assert net.proof is not None
    assert net.proof.end_to_end["outputs"] == 1


class Membrane(nn.Module):
    """Neurons whose potential is the first current, later a sum with what is left of it."""

    def forward(self, x: Tensor) -> Tensor:
        v, s, out = x[0], torch.zeros_like(x[0]), []
        for t, current in enumerate(x):
            v = 0.5 * v * (1 - s) + current if t else current
            s = (v > 0.4).float()
            out.append(s)
        return torch.stack(out)


class Residual(nn.Module):
    """Blocks of a spiking residual network, as of EMS-YOLO (Su et al., ICCV 2023), on images ``[T, B, 2, 8, 8]``."""

    def __init__(self, pool: Callable[[Tensor], Tensor], axes: tuple[int, ...]) -> None:
        super().__init__()
        self.enter, self.inner, self.after = (nn.Conv3d(2, 2, (1, 3, 3), padding=(0, 1, 1)) for _ in range(3))
        self.neurons, self.pool, self.axes = Membrane(), pool, axes

    def by_channel(self, layer: nn.Module, x: Tensor) -> Tensor:
        found: Tensor = layer(x.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4)
        return found

    def forward(self, x: Tensor) -> Tensor:
        first = self.by_channel(self.enter, x)
        spikes = self.neurons(first + self.by_channel(self.inner, self.neurons(first)))
        back = [self.axes.index(axis) for axis in range(5)]
        pooled = self.pool(spikes.permute(self.axes)).permute(back)
        found: Tensor = self.neurons(self.by_channel(self.after, pooled))
        return found


@pytest.mark.parametrize("axes", [(0, 1, 2, 3, 4), (1, 2, 0, 3, 4)])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool3d((1, 2, 2)),
        lambda x: functional.avg_pool3d(x, (1, 2, 2)),
        nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    ],
)
def test_residual_sums_that_are_a_first_potential_and_pools_over_images_in_three_axes(
    pool: Callable[[Tensor], Tensor], axes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = Residual(pool, axes)
    require_same(model, 2 * torch.rand(6, 2, 2, 8, 8), 3 * torch.rand(7, 3, 2, 8, 8))


class BelowZero(nn.Module):
    """Potentials in mV: 6 inputs, 8 neurons; ``less``: what a spike does to v."""

    def __init__(self, less: Callable[[Tensor, Tensor], Tensor], threshold: float = -60.0) -> None:
        super().__init__()
        self.enter, self.less, self.threshold = nn.Linear(6, 8), less, threshold
        self.start: Callable[[Tensor], Tensor] = lambda v: v

    def forward(self, x: Tensor) -> Tensor:
        v, found = self.start(torch.zeros(x.shape[1], 8)), []
        for current in 20 * self.enter(x):
            v = 0.95 * v + current
            spikes = ((torch.relu(v) if self.threshold == 0 else v) > self.threshold).float()
            v = self.less(v, spikes)
            found.append(spikes)
        return torch.stack(found)


def followed(error: pytest.ExceptionInfo[CaptureError]) -> Callable[..., Tensor]:
    """Return the right side of the assignment that a sentence ends in, as a function of v and s."""
    sentence = str(error.value)
    assert "dialect" not in sentence
    assert "files" not in sentence
    code = re.search(r": v = (.*)$", sentence)
    assert code, sentence
    return lambda v, s=None: eval(code[1], {"torch": torch, "v": v, "s": s})


@pytest.mark.parametrize(
    ("less", "threshold"),
    [
        (lambda v, s: torch.where(s > 0, torch.full_like(v, -70.0), v), -60.0),
        (lambda v, s: v - s * 7, -60.0),
        (lambda v, s: v - s * 0.3, 0.0),
    ],
)
def test_a_start_above_the_threshold_is_lowered_as_its_sentence_says(
    less: Callable[[Tensor, Tensor], Tensor], threshold: float
) -> None:
    torch.manual_seed(0)
    model = BelowZero(less, threshold)
    with pytest.raises(CaptureError, match="v starts at 0, not below it") as error:
        stl.capture(model, torch.rand(6, 4, 6))
    model.start = followed(error)
    assert require_same(model, torch.rand(6, 4, 6), torch.rand(9, 3, 6)).program.spiking[0].v_start is not None


def test_a_threshold_below_0_that_is_subtracted_becomes_a_number_as_its_sentence_says() -> None:
    torch.manual_seed(0)
    model = BelowZero(lambda v, s: v - s * -60)
    with pytest.raises(CaptureError, match="does not lower v") as error:
        stl.capture(model, torch.rand(6, 4, 6))
    model.less, model.start = followed(error), lambda v: torch.full_like(v, -65)
    require_same(model, torch.rand(6, 4, 6), torch.rand(9, 3, 6))


class Normalized(nn.Module):
    """A neuron called step by step, of a current less its mean over 4 features."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.reset()

    def reset(self) -> None:
        self.v: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        current = self.linear(x)
        v = 0.9 * self.v + current - current.mean(-1, keepdim=True).expand(-1, 4)
        spikes = (v >= 0.3).float()
        self.v = v - 0.3 * spikes
        return spikes


@pytest.mark.parametrize("steps", [3, 4, 5])
def test_a_width_that_equals_the_number_of_steps_is_not_taken_for_time(steps: int) -> None:
    torch.manual_seed(0)
    model, x, unseen = Normalized(), x_of(steps, 3, 6), x_of(9, 2, 6, seed=2)
    net = stl.capture(model, x, time="step")
    for batch in (x, unseen):
        model.reset()
        expected = torch.stack([model(step) for step in batch])
        assert torch.equal(torch.as_tensor(net.simulate(batch.numpy()).y), expected)
