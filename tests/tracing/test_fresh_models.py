"""Parameters that forward changes, layers in a loop, burn-ins, sizes of 1, and other finds of models in many styles."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError, InputError
from stl_deploy.graph.readout import Readout, readout_of
from stl_deploy.tracing.recording import running
from stl_deploy.tracing.unrolling.nodes import Nodes
from tests.tracing.held import require_cell

T, B = 7, 4
X = (torch.rand(T, B, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()
Step = Callable[["Loop", Tensor, Any, int], tuple[Tensor, Any]]


def fires(v: Tensor) -> Tensor:
    return (v > 0.5).float()


class Loop(nn.Module):
    """A loop over time around ``step``, whose outputs ``end`` reads; ``before`` is done first."""

    def __init__(
        self, step: Step, end: Callable[[Loop, Tensor], Tensor] = lambda model, y: y, before: Any = None
    ) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.step, self.end, self.before = step, end, before

    def forward(self, x: Tensor) -> Tensor:
        if self.before is not None:
            self.before(self)
        state, out = None, []
        for t in range(len(x)):
            y, state = self.step(self, x[t], state, t)
            out.append(y)
        return self.end(self, torch.stack(out))


def lif(model: Loop, x: Tensor, v: Any, t: int) -> tuple[Tensor, Tensor]:
    v = torch.zeros(x.shape[0], 8) if v is None else v
    v = 0.8 * v + 2 * model.a(x)
    s = fires(v)
    return model.c(s), v - 0.5 * s


def halve(model: nn.Module) -> None:
    model.half().float()


def clamp(model: Loop) -> None:
    model.a.weight.data.clamp_(-0.1, 0.1)


def shrink(model: Loop) -> None:
    with torch.no_grad():
        model.a.weight.mul_(0.5)


def replace(model: Loop) -> None:
    model.a.weight.data = model.a.weight.data * 2


def by_numpy(model: Loop) -> None:
    model.a.weight.data.numpy()[:] *= 0.5


@pytest.mark.parametrize("change", [halve, clamp, shrink, replace, by_numpy])
def test_a_forward_that_changes_parameters_is_refused_and_undone(change: Callable[[Any], None]) -> None:
    model = Loop(lif, before=change)
    held = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CaptureError, match=r"forward changes parameter 'a.weight'") as refused:
        stl.capture(model, X)
    if change is not by_numpy:
        assert (refused.value.line or "").startswith("test_fresh_models.py:")
    for key, value in model.state_dict().items():
        assert value.dtype == held[key].dtype
        assert torch.equal(value, held[key])


def test_a_clamp_that_changes_nothing_is_taken() -> None:
    model = Loop(lif, before=lambda each: each.a.weight.data.clamp_(-9, 9))
    same(stl.capture(model, X), model)


def test_half_precision_by_a_swap_of_data_in_a_state_is_followed() -> None:
    class Swaps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Linear(6, 8)
            self.register_buffer("v", torch.zeros(1, 8))

        def forward(self, x: Tensor) -> Tensor:
            self.v.data = torch.zeros(x.shape[1], 8)
            out = []
            for each in x:
                v = 0.8 * self.v + 2 * self.a(each)
                out.append(fires(v))
                self.v.data = v - 0.5 * out[-1]
            return torch.stack(out)

    model = Swaps()
    net = stl.capture(model, X)
    assert model.v.shape == (1, 8)
    same(net, model)


def drawn(seed: int, steps: int = T, samples: int = B) -> Tensor:
    return 1.5 * torch.randn(steps, samples, 6, generator=torch.Generator().manual_seed(seed))


def same(net: stl.SpikingGraph, model: nn.Module, steps: tuple[int, ...] = (T, T + 3)) -> None:
    """The graph computes what the model does on input drawn anew; fails on a model whose output stays 0."""
    for seed, length in enumerate(steps):
        x = drawn(seed + 5, length, 9)
        with torch.no_grad():
            expected = model(x).numpy()
        assert np.ptp(expected) > 0
        found = net.simulate(x.numpy())
        every = net.readout == Readout()
        np.testing.assert_allclose(
            (found.y if every else found.readout).reshape(expected.shape), expected, rtol=1e-4, atol=1e-4
        )


def stack(model: Loop, x: Tensor, v: Any, t: int) -> tuple[Tensor, Any]:
    """Two layers by one line each."""
    v = [torch.zeros(x.shape[0], 8)] * 2 if v is None else list(v)
    h = x
    for i, layer in enumerate((model.a, model.b)):
        v[i] = 0.8 * v[i] + 3 * layer(h)
        h = fires(v[i])
        v[i] = v[i] * (1 - h)
    return h, v


def test_the_last_step_of_layers_in_a_loop() -> None:
    class Last(Loop):
        def forward(self, x: Tensor) -> Tensor:
            state = None
            for t in range(len(x)):
                y, state = self.step(self, x[t], state, t)
            return y

    model = Last(stack)
    net = stl.capture(model, X)
    assert net.readout == Readout("last")
    same(net, model)


@pytest.mark.parametrize(
    ("end", "readout"),
    [
        (lambda model, y: y[3:].sum(0), Readout("sum", start=3)),
        (lambda model, y: y[2:].mean(0), Readout("mean", start=2)),
        (lambda model, y: y[-3:].mean(0), Readout("mean", start=-3)),
        (lambda model, y: y[2:], Readout(start=2)),
        (lambda model, y: torch.stack(list(y)[2:]), Readout(start=2)),
        (lambda model, y: torch.stack(list(y)[-2:]).sum(0), Readout("sum", start=-2)),
        (lambda model, y: sum(list(y)[4:]), Readout("sum", start=4)),
        (lambda model, y: y[1:].amax(0).softmax(-1), Readout("max", then="softmax", start=1)),
    ],
)
def test_a_burn_in_is_left_out_by_the_readout(end: Callable[[Loop, Tensor], Tensor], readout: Readout) -> None:
    model = Loop(lif, end)
    net = stl.capture(model, X)
    assert net.readout == readout
    assert len(net.simulate(X.numpy()).y) == T
    same(net, model)


def test_a_sum_that_begins_late_in_the_loop() -> None:
    class Late(Loop):
        def forward(self, x: Tensor) -> Tensor:
            v, total = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 3)
            for t in range(len(x)):
                v = 0.8 * v + 2 * self.a(x[t])
                s = fires(v)
                v = v - 0.5 * s
                if t >= 2:
                    total = total + self.c(s)
            return total

    model = Late(lif)
    net = stl.capture(model, X)
    assert net.readout == Readout("sum", start=2)
    same(net, model)


def test_a_stride_over_time_is_refused() -> None:
    with pytest.raises(CaptureError, match="found 4 outputs"):
        stl.capture(Loop(lif, lambda model, y: y[::2].mean(0)), X)
    with pytest.raises(CaptureError, match=r"4 values are stacked, which is not one for each of 7 time steps"):
        stl.capture(Loop(lif, lambda model, y: torch.stack(list(y)[::2]).mean(0)), X)


def test_a_readout_of_later_steps() -> None:
    y = np.arange(8, dtype=np.float32).reshape(4, 1, 2)
    assert Readout("sum", start=2)(y).tolist() == [[10, 12]]
    assert Readout("mean", start=-1)(y).tolist() == [[6, 7]]
    assert Readout(start=3)(y).tolist() == [[[6, 7]]]
    assert Readout("sum", start=2).decide(np.float32([[[9, 0]], [[9, 0]], [[0, 1]]])).tolist() == [1]
    assert str(Readout("sum", start=2)) == "sum over time from step 2 on"
    assert str(Readout("sum", start=-2)) == "sum over time, the last 2 steps"
    assert readout_of({"readout": Readout("sum", start=2).as_dict()}) == Readout("sum", start=2)
    assert "start" not in Readout("sum").as_dict()
    for start in (4, -5):
        with pytest.raises(InputError, match="the outputs have 4; give more steps"):
            Readout("sum", start=start)(y)
    with pytest.raises(InputError, match="expected start to be the number of a step"):
        Readout(start=True)


def test_what_a_model_keeps_of_an_earlier_input_is_found() -> None:
    class Caches(Loop):
        kept: Any = None

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None or self.kept.shape != x.shape:
                self.kept = x
            return super().forward(self.kept)

    with pytest.raises(CaptureError, match="something else on the same input after another call"):
        stl.capture(Caches(lif), X)


def test_an_output_made_otherwise_in_a_silent_first_step_is_refused() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.a, self.c = nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros(x.shape[1], 8), []
            for t in range(len(x)):
                v = 0.9 * v + 0.5 * self.a(x[t])
                s = fires(v)
                v = v - 0.5 * s
                y = self.c(s)
                out.append(y if t else 2 * y)
            return torch.stack(out)

    model, x = Deep(), X.clone()
    x[0] = 0
    with pytest.raises(CaptureError, match=r"'mm' \(in module 'c', Linear\) differs between step 0 and the steps"):
        stl.capture(model, x)


@pytest.mark.parametrize(
    "end",
    [lambda model, y: y * (2 if len(y) == 1 else 1), lambda model, y: y * (2 if y.shape[1] == 1 else 1)],
)
def test_a_branch_on_a_size_of_1_is_refused(end: Callable[[Loop, Tensor], Tensor]) -> None:
    with pytest.raises(CaptureError, match=r"something else on 1 (step|sample) than on x"):
        stl.capture(Loop(lif, end), X)


def test_an_axis_of_one_sample_may_be_squeezed() -> None:
    model = Loop(lif, lambda each, y: y.squeeze())
    same(stl.capture(model, X), model)


def test_gains_of_currents_beside_a_neurons_own_spike() -> None:
    def step(model: Loop, x: Tensor, state: Any, t: int) -> tuple[Tensor, Any]:
        v, s = (torch.zeros(x.shape[0], 8),) * 2 if state is None else state
        v = 0.9 * v + 2 * model.a(x) + 0.4 * s
        s = (v >= 1).float()
        return s, (v - s, s)

    model = Loop(step)
    same(stl.capture(model, X), model)


def test_a_count_of_at_most_one_spike_is_a_spike() -> None:
    def step(model: Loop, x: Tensor, v: Any, t: int) -> tuple[Tensor, Any]:
        v = 0.8 * (torch.zeros(x.shape[0], 8) if v is None else v) + 2 * model.a(x)
        s = torch.floor(v).clamp(0, 1)
        return model.c(s), v - s

    model = Loop(step)
    same(stl.capture(model, X), model)

    def nearest(model: Loop, x: Tensor, v: Any, t: int) -> tuple[Tensor, Any]:
        v = 0.8 * (torch.zeros(x.shape[0], 8) if v is None else v) + 2 * model.a(x)
        s = torch.round(v).clamp(0, 1)
        return model.c(s), v - s

    require_cell(Loop(nearest), X)


def delayed(model: Loop, x: Tensor, state: Any, t: int) -> tuple[Tensor, Any]:
    v, w, queue = (torch.zeros(x.shape[0], 8),) * 2 + ([torch.zeros(x.shape[0], 8)] * 2,) if state is None else state
    v = 0.8 * v + 2 * model.a(x)
    s = fires(v)
    w = 0.8 * w + 3 * model.b(queue[0])
    z = fires(w)
    return z, (v - 0.5 * s, w * (1 - z), [*queue[1:], s])


def test_a_bias_behind_a_delay_in_a_loop() -> None:
    model = Loop(delayed)
    same(stl.capture(model, X), model)


class Keeps(nn.Module):
    """One step; its state stays, and spikes leave by a queue."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(6, 8)
        self.v: Any = None
        self.queue: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.v = 0.8 * (torch.zeros(x.shape[0], 8) if self.v is None else self.v) + 2 * self.a(x)
        s = fires(self.v)
        self.v = self.v - 0.5 * s
        self.queue = [*self.queue, s]
        return self.queue[-3] if len(self.queue) > 2 else torch.zeros_like(s)

    def clear(self) -> None:
        self.v, self.queue = None, []


def test_state_of_another_batch_is_named() -> None:
    model = Keeps()
    model(X[0, :2])
    with pytest.raises(CaptureError, match=r"it keeps state of another batch: clear it in a method reset\(\)"):
        stl.capture(model, X, time="step")


def test_spikes_that_leave_late_are_compared_for_other_batches() -> None:
    model = Keeps()
    net = stl.capture(model, X, time="step", reset=model.clear)
    x = drawn(3, 9, 5)
    model.clear()
    with torch.no_grad():
        expected = torch.stack([model(each) for each in x]).numpy()
    assert expected.any()
    assert (net.simulate(x.numpy()).y == expected).all()


class WritesInto(nn.Module):
    """Its output is the state, into which the next call writes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)
        self.v: Any = 0.0
        self.out: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v += 2 * self.a(x)
        s = fires(self.v)
        self.v = 0.8 * self.v.masked_fill(s > 0, 0.0)
        self.out += self.b(s)
        self.out = self.out - self.out / 100
        return self.out

    def reset(self) -> None:
        self.v = self.out = 0.0


def test_outputs_are_read_before_the_next_call_writes_into_them() -> None:
    model = WritesInto()
    net = stl.capture(model, X, time="step")
    model.reset()
    with torch.no_grad():
        expected = torch.stack([model(each).clone() for each in X]).numpy()
    assert np.abs(net.simulate(X.numpy()).y - expected).max() < 1e-6 < np.abs(expected).max()


def test_a_module_in_float64_is_warned_of() -> None:
    def step(model: Loop, x: Tensor, v: Any, t: int) -> tuple[Tensor, Any]:
        v = 0.8 * (torch.zeros(x.shape[0], 8, dtype=torch.float64) if v is None else v) + 2 * model.a(x)
        return fires(v), v - 0.5 * fires(v)

    with pytest.warns(UserWarning, match="the model computes in float64 and the graph in float32"):
        stl.capture(Loop(step).double(), X.double())


def test_x_in_the_first_step_only_is_named() -> None:
    class First(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.stack([x, *[torch.zeros_like(x)] * 7]))

    class ByHand(Loop):
        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros(x.shape[0], 8), []
            for t in range(8):
                v = 0.8 * v + 3 * self.a(x if t == 0 else torch.zeros_like(x))
                out.append(fires(v))
                v = v - 0.5 * out[-1]
            return torch.stack(out)

    with pytest.raises(CaptureError, match=r"x is read in the first step only; let forward take \[T, B, ...\]"):
        stl.capture(ByHand(lif), X[0], time="inside")
    with pytest.raises(CaptureError):
        stl.capture(First(lif), X[0], time="inside")


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_loads_torchs_compiler_is_run_once_more_without_it(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = torch._dynamo
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    loaded = []

    def run() -> int:
        loaded.append("torch._dynamo" in sys.modules)
        sys.modules["torch._dynamo"] = compiler
        if fails and len(loaded) == 1:
            raise CaptureError("compiled code cannot be recorded")
        return len(loaded)

    assert running._again_if_loaded(run) == 2
    assert loaded == [False, True]


def test_a_run_without_torchs_compiler_does_not_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch._dynamo
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    assert running._again_if_loaded(lambda: 3) == 3
    assert "torch._dynamo" not in sys.modules

    def refused() -> int:
        raise CaptureError("refused")

    with pytest.raises(CaptureError, match="refused"):
        running._again_if_loaded(refused)
    assert "torch._dynamo" not in sys.modules
    sys.modules["torch._dynamo"] = compiler


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.float16, torch.float32, torch.float64, torch.complex128]
)
def test_constants_are_one_where_type_shape_and_every_bit_are_equal(dtype: torch.dtype) -> None:
    nodes = Nodes()
    ones = nodes.constant(torch.ones(3, 4, dtype=dtype))
    assert nodes.constant(torch.ones(1, dtype=dtype).expand(3, 4)) is ones
    mixed = torch.ones(3, 4, dtype=dtype)
    mixed[1, 2] = 0
    others = [torch.zeros(3, 4, dtype=dtype), torch.ones(4, 3, dtype=dtype), mixed, mixed.flip(1)]
    others += [-others[0], others[0] * float("nan")] if dtype.is_floating_point else []
    made = [nodes.constant(other) for other in others]
    assert len({id(node) for node in (ones, *made)}) == 1 + len(others)
    assert [nodes.constant(other.clone()) for other in others] == made
