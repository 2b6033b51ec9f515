"""Delays as models write them: buffers, gathers and interpolation become Delay nodes, held on unseen input."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from stl_deploy.exporters.c.compiler import find_compiler
from stl_deploy.graph.program import Delay, Linear
from tests.tracing.test_written_otherwise import numbers, require_same, spikes

DELAYS = torch.tensor([0, 1, 2, 3, 1, 0])


class Delayed(nn.Module):
    """Currents of 6 channels, each delayed by its own steps, then spikes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(5, 6), nn.Linear(6, 3)
        self.register_buffer("steps", DELAYS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.leave(spikes(self.late(self.enter(x) + 0.3)))
        return out

    def late(self, h: Tensor) -> Tensor:
        raise NotImplementedError


class Buffer(Delayed):
    def late(self, h: Tensor) -> Tensor:
        buffer, found = torch.zeros(4, h.shape[1], 6), []
        for step in h:
            buffer = torch.cat([step[None], buffer[:-1]])
            found.append(buffer[self.steps, :, torch.arange(6)].T)
        return torch.stack(found)


class Rolled(Delayed):
    def late(self, h: Tensor) -> Tensor:
        buffer, found = torch.zeros(4, h.shape[1], 6), []
        for step in h:
            buffer = torch.roll(buffer, 1, 0)
            buffer[0] = step
            found.append(torch.gather(buffer, 0, self.steps.expand(1, h.shape[1], 6))[0])
        return torch.stack(found)


class OverTime(Delayed):
    def late(self, h: Tensor) -> Tensor:
        padded = functional.pad(h, (0, 0, 0, 0, 3, 0))
        places = torch.arange(len(h))[:, None, None] + 3 - self.steps
        return torch.gather(padded, 0, places.expand(h.shape))


class Interpolated(Delayed):
    """A learned delay of each channel between two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.delay = nn.Parameter(torch.tensor([0.0, 0.75, 2.25, 3.0, 1.0, 0.25]))

    def late(self, h: Tensor) -> Tensor:
        found = torch.zeros_like(h)
        for k in range(5):
            share = (1 - (self.delay - k).abs()).clamp(min=0)
            found = found + share * functional.pad(h, (0, 0, 0, 0, k, 0))[: len(h)]
        return found


class InterpolatedSpikes(Interpolated):
    """The same delays, of spikes."""

    def forward(self, x: Tensor) -> Tensor:
        return spikes(self.leave(self.late(spikes(self.enter(x) + 0.3))) + 0.3)


class Taps(nn.Module):
    """A learned delay of each synapse, as a kernel over time (DCLS with linear interpolation)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.weight, self.delay = nn.Parameter(torch.rand(4, 5) + 0.2), nn.Parameter(torch.rand(4, 5) * 3)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.weight[..., None] * (1 - (self.delay[..., None] - torch.arange(5.0)).abs()).clamp(min=0)
        currents = functional.conv1d(functional.pad(x.permute(1, 2, 0), (4, 0)), taps.flip(-1))
        return spikes(currents.permute(2, 0, 1))


@pytest.mark.parametrize("kind", [Buffer, Rolled, OverTime])
def test_channels_with_their_own_delays_are_one_delay_node(kind: type[Delayed], tmp_path: Path) -> None:
    x = (numbers(10, 3, 5) > 0.5).float()
    net = require_same(kind(), x, (numbers(10, 2, 5, seed=2) > 0.6).float())
    (delay,) = net.program.of(Delay)
    assert delay.steps.tolist() == DELAYS.tolist()
    net.export(tmp_path / "net.nir")
    net.export(tmp_path / "net.onnx")
    read = stl.read(tmp_path / "net.nir")
    (again,) = read.program.of(Delay)
    assert again.steps.tolist() == DELAYS.tolist()
    if find_compiler() is not None:
        net.export(tmp_path / "c", to="c")


def test_places_that_depend_on_the_input_are_refused() -> None:
    class Chosen(Delayed):
        def late(self, h: Tensor) -> Tensor:
            return torch.gather(h, 2, (h > 0).long())

    with pytest.raises(CaptureError, match=r"'gather' takes values at indices that depend on the input.*"):
        stl.capture(Chosen(), numbers(8, 3, 5))


def test_other_samples_are_refused() -> None:
    class Mixed(Delayed):
        def late(self, h: Tensor) -> Tensor:
            return torch.gather(h, 1, torch.arange(h.shape[1]).flip(0)[None, :, None].expand(h.shape))

    with pytest.raises(CaptureError, match=r"'gather' (moves time steps or samples)"):
        stl.capture(Mixed(), numbers(8, 3, 5))


def test_interpolated_delays_are_held_exactly_and_rounded_where_asked(tmp_path: Path) -> None:
    x = (numbers(12, 3, 5) > 0.5).float()
    net = require_same(Interpolated(), x, (numbers(12, 2, 5, seed=2) > 0.6).float())
    with pytest.warns(
        UserWarning, match=r"delays rounded to steps: 3 synapses, by 0.25 steps on average and 0.25 at m"
    ):
        rounded = net.fold(delays="steps")
    (delay,) = rounded.program.of(Delay)
    assert delay.steps.tolist() == [0, 1, 2, 3, 1, 0]
    model = OverTime()
    model.steps = DELAYS
    expected = stl.capture(model, x).simulate(x.numpy())
    for name, expected_spikes in expected.spikes.items():
        assert expected_spikes.any()
        np.testing.assert_array_equal(rounded.simulate(x.numpy()).spikes[name], expected_spikes)
    if find_compiler() is not None:
        rounded.export(tmp_path / "c", to="c")


def test_interpolated_delays_of_spikes_are_refused_by_c_until_they_are_rounded() -> None:
    net = stl.capture(InterpolatedSpikes(), (numbers(10, 3, 5) > 0.5).float())
    (refused,) = (found for found in net.check("c").findings if found.severity == "error")
    assert (refused.node, refused.slug) == ("leave", "fractional-delay")
    assert refused.remedy is not None
    assert "net.fold(delays='steps')" in refused.remedy
    with pytest.warns(UserWarning, match="delays rounded to steps"):
        assert net.fold(delays="steps").check("c").ok


def test_synapses_with_their_own_delays_are_rounded_to_one_tap() -> None:
    x, model = (numbers(12, 3, 5) > 0.5).float(), Taps()
    net = require_same(model, x)
    taps = {node.name: node.weight for node in net.program.of(Linear)}
    assert sum(int((weight != 0).sum()) for weight in taps.values()) == 40
    with pytest.warns(UserWarning, match=r"delays rounded to steps: 20 synapses, by 0\.\d+ steps"):
        rounded = net.fold(delays="steps")
    assert sum(int((node.weight != 0).sum()) for node in rounded.program.of(Linear)) == 20
    nearest = Taps()
    nearest.load_state_dict({"weight": model.weight, "delay": model.delay.detach().round()})
    np.testing.assert_array_equal(rounded.simulate(x.numpy()).y, nearest(x).detach().numpy())


def test_a_queue_kept_between_calls() -> None:
    class Queue(nn.Module):
        """SpikingJelly's Delay in single-step mode, in front of a neuron."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.enter, self.leave = nn.Linear(5, 6), nn.Linear(6, 3)
            self.reset()

        def reset(self) -> None:
            self.queue: list[Tensor] = []
            self.v: Tensor | float = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.queue.append(self.enter(x) + 0.3)
            current = self.queue.pop(0) if len(self.queue) > 2 else torch.zeros_like(self.queue[0])
            v = 0.5 * self.v + current
            s = (v > 0.4).float()
            self.v = v * (1 - s)
            out: Tensor = self.leave(s)
            return out

    x = (numbers(9, 3, 5) > 0.5).float()
    net = stl.capture(Queue(), x, time="step")
    (delay,) = net.program.of(Delay)
    assert int(delay.steps.max()) == 2
    model = Queue()
    expected = torch.stack([model(step) for step in x]).detach().numpy()
    np.testing.assert_allclose(net.simulate(x.numpy()).y, expected, rtol=1e-5, atol=1e-6)


class EarlierKeys(nn.Module):
    """Attention ``[T, B, N, C]`` to the keys of the step before."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.query, self.key, self.heads = nn.Linear(6, 8), nn.Linear(6, 8), heads

    def forward(self, x: Tensor) -> Tensor:
        q, k = spikes(self.query(x)), spikes(self.key(x))
        k = functional.pad(k, (0, 0, 0, 0, 0, 0, 1, 0))[:-1]
        q, k = (part.unflatten(-1, (self.heads, -1)).transpose(2, 3) for part in (q, k))
        return spikes((q @ k.transpose(-2, -1)).flatten(2, 3))


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_to_the_keys_of_the_step_before(heads: int) -> None:
    x, unseen = numbers(7, 4, 5, 6), 3 * numbers(9, 2, 5, 6, seed=2) - 1
    require_same(EarlierKeys(heads), x, unseen, 2 * numbers(3, 1, 5, 6, seed=3))


class Remembers(nn.Module):
    """Five leaky neurons behind ``late``, which remembers more steps than x has."""

    def __init__(self, late: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.over_time, self.late = nn.Linear(6, 5), nn.Conv1d(6, 5, 11), late

    def forward(self, x: Tensor) -> Tensor:
        return self.late(self, x)

    def spikes(self, currents: Tensor) -> Tensor:
        v, found = torch.zeros_like(currents[0]), []
        for current in currents:
            v = 0.75 * v + current
            found.append((v > 0.5).float())
            v = v * (1 - found[-1])
        return torch.stack(found)


def queued(model: Remembers, x: Tensor) -> Tensor:
    waiting = deque([torch.zeros(x.shape[1], 5)] * 20)
    found = []
    for fired in model.spikes(2 * model.enter(x)):
        waiting.append(fired)
        found.append(waiting.popleft())
    return torch.stack(found)


def queued_beside(model: Remembers, x: Tensor) -> Tensor:
    return queued(model, x) + model.spikes(2 * model.enter(x))


def convolved(model: Remembers, x: Tensor) -> Tensor:
    late = functional.pad(x.permute(1, 2, 0), (10, 0))
    return model.spikes(2 * model.over_time(late).permute(2, 0, 1))


@pytest.mark.parametrize("late", [queued_beside, convolved])
def test_what_remembers_more_steps_than_x_has_is_traced_on_x_repeated(late: Callable[[Any, Tensor], Tensor]) -> None:
    x = torch.rand(8, 3, 6, generator=torch.Generator().manual_seed(1))
    model = Remembers(late)
    net = stl.capture(model, x)
    assert net.sample is not None
    assert net.sample.shape == (8, 3, 6)
    longer = torch.cat([x, 1 - x, x, x * 0.5, x])
    for given in (x, longer):
        np.testing.assert_array_equal(net.simulate(given.numpy()).y, model(given).detach().numpy())


def padded_behind(model: Remembers, x: Tensor) -> Tensor:
    both = functional.pad(x.permute(1, 2, 0), (5, 6))
    late = model.over_time(both).permute(2, 0, 1)
    v, out = torch.zeros_like(late[0]), torch.zeros(late.shape)
    for t, current in enumerate(late):
        v = 0.75 * v + 2 * current
        out[t] = (v > 0.5).float()
        v = v * (1 - out[t])
    return out


def test_more_outputs_than_steps_are_of_padding_behind_the_last_step() -> None:
    x = torch.rand(20, 3, 6, generator=torch.Generator().manual_seed(1))
    with pytest.raises(CaptureError, match=r"found 21 outputs.*pad before x alone"):
        stl.capture(Remembers(padded_behind), x)
    assert stl.capture(Remembers(convolved), x).proof is not None


def test_x_is_repeated_only_where_more_steps_may_help() -> None:
    """A refusal of an operation traced x again, repeated to 128 steps: of large images for minutes, in 19 GB."""
    called: list[int] = []

    def summed(model: Remembers, x: Tensor) -> Tensor:
        called.append(len(x))
        return model.spikes(model.enter(x.cumsum(2)))

    with pytest.raises(CaptureError, match="'cumsum' has no form"):
        stl.capture(Remembers(summed), torch.rand(8, 3, 6))
    assert max(called) == 8


@pytest.mark.parametrize("at", [0, 2])
def test_one_step_of_x_that_all_read_is_named(at: int) -> None:
    x = torch.rand(8, 3, 6, generator=torch.Generator().manual_seed(1))
    with pytest.raises(CaptureError, match=f"reads step {at} of x in several steps.*before capture"):
        stl.capture(Remembers(lambda model, x: model.spikes(model.enter(x - x[at : at + 1]))), x)
    net = stl.capture(Remembers(lambda model, x: model.spikes(model.enter(x))), x - x[at : at + 1])
    assert net.proof is not None


class Behind(Remembers):
    """Leaky neurons behind an operation on spikes of ``steps`` ago."""

    def __init__(self, change: Callable[[Any, Tensor], Tensor], steps: int, how: str) -> None:
        super().__init__(lambda model, x: model.leave(model.spikes(model.changed(model.spikes(2 * model.enter(x))))))
        self.inner, self.leave = nn.Linear(5, 5), nn.Linear(5, 3)
        self.change, self.waits, self.how = change, steps, how

    def changed(self, spikes: Tensor) -> Tensor:
        if self.how == "queued":
            waiting, found = deque([torch.zeros_like(spikes[0])] * self.waits), []
            for fired in spikes:
                waiting.append(fired)
                found.append(self.change(self, waiting.popleft()))
            return torch.stack(found)
        late = functional.pad(spikes, (0, 0, 0, 0, self.waits, 0))[: len(spikes)]
        return self.change(self, late) if self.how == "at once" else torch.stack([self.change(self, s) for s in late])


CHANGES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a constant added": lambda model, s: s + 0.1,
    "a gain and a constant": lambda model, s: 0.3 * s + 0.05,
    "a layer with a bias": lambda model, s: model.inner(s),
    "a layer and a ReLU": lambda model, s: model.inner(s).relu(),
    "neurons fire of the constant": lambda model, s: 1 - s,
}


def test_a_layer_reads_spikes_and_the_same_spikes_late() -> None:
    model = Remembers(lambda model, x: model.spikes(both(model, model.spikes(2 * model.enter(x)))))
    model.inner = nn.Linear(5, 5)

    def both(model: Remembers, s: Tensor) -> Tensor:
        return model.inner(s) + model.inner(functional.pad(s, (0, 0, 0, 0, 2, 0))[: len(s)])

    x = torch.rand(12, 3, 6, generator=torch.Generator().manual_seed(1))
    require_same(model, x, 3 * torch.rand(20, 5, 6) - 1)


@pytest.mark.push(8)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("how", ["at once", "each", "queued"])
@pytest.mark.parametrize("name", CHANGES)
def test_what_is_made_of_the_zeros_before_a_delay_has_arrived(name: str, how: str, steps: int) -> None:
    x = torch.rand(12, 3, 6, generator=torch.Generator().manual_seed(1))
    model = Behind(CHANGES[name], steps, how)
    try:
        net = stl.capture(model, x)
    except CaptureError:
        assert how != "at once"  # where neurons fire before anything arrives, all steps are given at once
        assert name.startswith("neurons fire")
        return
    for given in (x, 3 * torch.rand(20, 5, 6) - 1):
        np.testing.assert_array_equal(net.simulate(given.numpy()).y, model(given).detach().numpy())


class Queues(Remembers):
    """Two populations, each behind a queue of some steps and a layer with a bias, in one loop."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(lambda model, x: torch.stack(list(model.stepped(x))))
        self.inner, self.first, self.second = nn.Linear(5, 5), first, second

    def stepped(self, x: Tensor) -> Iterator[Tensor]:
        waiting = deque([torch.zeros_like(x[0])] * self.first), deque([torch.zeros(x.shape[1], 5)] * self.second)
        v = w = torch.zeros(x.shape[1], 5)
        for current in x:
            waiting[0].append(current)
            v = 0.75 * v + 3 * self.enter(waiting[0].popleft())
            fired = (v > 0.5).float()
            v = v - 0.5 * fired
            waiting[1].append(fired)
            w = 0.9 * w + 3 * self.inner(waiting[1].popleft())
            found = (w > 0.5).float()
            w = w - 0.5 * found
            yield found


@pytest.mark.parametrize("more", [1, 3, 4])
@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 1), (2, 3), (4, 4)])
def test_queues_before_layers_with_biases(first: int, second: int, more: int) -> None:
    """Neurons start of what biases make, on x of as few steps as there are."""
    x = torch.rand(max(4, first + second + more), 3, 6, generator=torch.Generator().manual_seed(1))
    require_same(Queues(first, second), x, 3 * torch.rand(25, 7, 6) - 1)


def beside(model: Remembers, x: Tensor) -> Tensor:
    before, currents = torch.zeros_like(x[0]), []
    for current in x:
        currents.append(model.enter(current) + model.enter(before))
        before = current
    return model.spikes(torch.stack(currents))


def differences(first: Callable[[Tensor], Tensor]) -> Callable[[Remembers, Tensor], Tensor]:
    def late(model: Remembers, x: Tensor) -> Tensor:
        return model.spikes(3 * model.enter(torch.cat([first(x[:1]), x[1:] - x[:-1]])))

    return late


def differences_in_a_loop(model: Remembers, x: Tensor) -> Tensor:
    before, currents = None, []
    for current in x:
        currents.append(3 * model.enter(current - (current if before is None else before)))
        before = current
    return model.spikes(torch.stack(currents))


SHORT = {
    "one layer of this step and the last": beside,
    "differences, zeros first": differences(torch.zeros_like),
    "differences, x first": differences(lambda x: x),
    "differences in a loop": differences_in_a_loop,
}


@pytest.mark.parametrize("name", SHORT)
def test_steps_and_the_step_before(name: str) -> None:
    x = torch.rand(8, 3, 6, generator=torch.Generator().manual_seed(1))
    require_same(Remembers(SHORT[name]), x, 3 * torch.rand(25, 5, 6) - 1)


def test_spikes_of_one_step_that_all_read_are_named() -> None:
    def late(model: Remembers, x: Tensor) -> Tensor:
        spikes = model.spikes(3 * model.enter(x))
        return spikes - spikes[0]

    with pytest.raises(CaptureError, match=r"'sub' reads step 0 of '_to_copy' in several steps") as refused:
        stl.capture(Remembers(late), torch.rand(8, 3, 6))
    assert refused.value.line is not None


class Volumes(nn.Module):
    """A convolution over three axes, ``[B, C, T, H, W]`` or a volume of each step, then neurons."""

    def __init__(self, kernel: tuple[int, int, int], padding: tuple[int, int, int], *, earlier: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.earlier = nn.Conv3d(2, 3, kernel, padding=padding), earlier

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 6:
            return spikes(2 * self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]).flatten(2))
        steps = functional.pad(x.permute(1, 2, 0, 3, 4), (0, 0, 0, 0, self.earlier, 0))
        return spikes(2 * self.conv(steps).permute(2, 0, 1, 3, 4).flatten(2))


@pytest.mark.parametrize(
    "model", [Volumes((1, 3, 3), (0, 1, 1)), Volumes((3, 3, 3), (0, 1, 1), earlier=2)], ids=["images", "earlier steps"]
)
def test_convolutions_over_images_and_earlier_steps(model: nn.Module) -> None:
    require_same(model, numbers(8, 3, 2, 4, 4), 2 * numbers(11, 2, 2, 4, 4, seed=2) - 0.5)


def test_convolutions_over_volumes_of_a_step() -> None:
    require_same(Volumes((3, 3, 3), (1, 1, 1)), numbers(8, 3, 2, 4, 4, 4), 2 * numbers(11, 2, 2, 4, 4, 4, seed=2) - 0.5)


def test_convolutions_over_later_steps_are_refused_by_line() -> None:
    with pytest.raises(CaptureError, match=r"test_delays\.py:\d+: a convolution over time reads steps after its own"):
        stl.capture(Volumes((3, 3, 3), (1, 1, 1)), numbers(8, 3, 2, 4, 4))
