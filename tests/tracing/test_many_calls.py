"""What one run on x does not show: numbers that change from call to call, late steps, larger counts, small units."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from tests.tracing.held import require_cell

X = (torch.rand(12, 4, 8, generator=torch.Generator().manual_seed(0)) < 0.1).float()


class Loop(nn.Module):
    """Six leaky neurons whose threshold is raised by ``theta``; ``after`` is called with the model and its spikes."""

    def __init__(self, after: Callable[[Any, Tensor], None], *, late: Callable[[int, Tensor], Tensor] | None = None):
        super().__init__()
        torch.manual_seed(4)
        self.enter = nn.Linear(8, 6)
        self.register_buffer("theta", torch.zeros(6))
        self.rate, self.level, self.kept = torch.zeros(6), 0.5, [torch.zeros(6)]
        self.calls, self.after, self.late = 0, after, late

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 6), []
        for t, step in enumerate(x):
            v = v if self.late is None else self.late(t, v)
            v = 0.75 * v + 2 * self.enter(step)
            out.append((v > self.level + self.theta + self.kept[0]).float())
            v = v * (1 - out[-1])
        spikes = torch.stack(out)
        self.after(self, spikes)
        return spikes


def theta_grows(model: Any, spikes: Tensor) -> None:
    model.theta = model.theta + 1e-6 * spikes.mean((0, 1))


def theta_grows_in_place(model: Any, spikes: Tensor) -> None:
    model.theta += 1e-6 * spikes.mean((0, 1))


def level_grows(model: Any, spikes: Tensor) -> None:
    model.level += 1e-8


def kept_grows(model: Any, spikes: Tensor) -> None:
    model.kept[0] = model.kept[0] + 1e-6


@pytest.mark.parametrize(
    ("after", "name"),
    [(theta_grows, "theta"), (theta_grows_in_place, "theta"), (level_grows, "level"), (kept_grows, "kept.0")],
)
def test_a_number_that_each_call_changes_a_little_is_refused(after: Callable[[Any, Tensor], None], name: str) -> None:
    model = Loop(after)
    with pytest.raises(CaptureError, match=rf"each call changes '{name}', on which .* in training only"):
        stl.capture(model, X)
    assert not model.theta.any()
    assert (model.level, len(model.kept)) == (0.5, 1)
    assert not model.kept[0].any()


def test_it_is_taken_where_it_changes_in_training_only_or_at_rest() -> None:
    class Resets(Loop):
        def reset(self) -> None:
            self.theta = torch.zeros(6)

    def trains(model: Any, spikes: Tensor) -> None:
        if model.training:
            theta_grows(model, spikes)

    for model in (Loop(trains), Resets(theta_grows)):
        net = stl.capture(model, X)
        assert (net.simulate(X.numpy()).y == model.eval()(X).detach().numpy()).all()


def test_numbers_that_only_a_monitor_reads_may_change() -> None:
    def watched(model: Any, spikes: Tensor) -> None:
        model.calls += 1
        model.rate = 0.9 * model.rate + 0.1 * spikes.mean((0, 1))

    assert stl.capture(Loop(watched), X).proof.replay_differing == 0


def test_a_state_that_is_written_before_it_is_read_may_change() -> None:
    class Writes(Loop):
        def forward(self, x: Tensor) -> Tensor:
            self.theta = torch.zeros(6)
            return super().forward(x)

    assert stl.capture(Writes(theta_grows), X).proof.replay_differing == 0


def table_of_the_longest(model: Any, spikes: Tensor) -> None:
    if len(spikes) > model.calls:
        model.calls, model.rate = len(spikes), torch.arange(len(spikes))


def scale_of_the_first_call(model: Any, spikes: Tensor) -> None:
    if model.calls == 0:
        model.level = model.level / 1.0
    model.calls = 1


def ring(model: Any, spikes: Tensor) -> None:
    model.rate[model.calls] = spikes.mean()
    model.calls = (model.calls + 1) % 6


@pytest.mark.parametrize("after", [table_of_the_longest, scale_of_the_first_call, ring])
def test_what_the_first_call_makes_and_what_stays_within_bounds_is_no_change(after: Any) -> None:
    assert stl.capture(Loop(after), X).proof.replay_differing == 0


def test_two_names_of_one_state_stay_one() -> None:
    class Shared(Loop):
        def forward(self, x: Tensor) -> Tensor:
            self.kept[0].zero_()
            return super().forward(x)

    def grows(model: Any, spikes: Tensor) -> None:
        model.theta += 1e-3

    model = Shared(grows)
    model.kept[0] = model.theta
    assert stl.capture(model, X).proof.replay_differing == 0


def test_tensors_in_containers_of_containers_are_left_as_they_were() -> None:
    model = Loop(lambda model, spikes: model.log["all"][0].add_(1))
    model.log = {"all": [torch.zeros(6)]}
    stl.capture(model, X)
    assert not model.log["all"][0].any()


@pytest.mark.parametrize(
    "late", [lambda t, v: v * 0 if t == 20 else v, lambda t, v: 0.5 * v if t > 40 else v, lambda t, v: v + (t == 60)]
)
def test_a_branch_on_a_step_that_sparse_x_does_not_reach_is_refused(late: Callable[[int, Tensor], Tensor]) -> None:
    with pytest.raises(CaptureError, match=r"something else on 256 steps of .* than on x; does a branch depend"):
        stl.capture(Loop(lambda model, spikes: None, late=late), (X + X.roll(3, 0) > 1).float())


def table(*, steps: int = 64, samples: int = 64, step: int = 64, sample: int = 64) -> Loop:
    """Weights by step and sample that a model of 12 steps and 4 samples has more of: later ones are 0."""
    rows = torch.ones(steps, samples, 1)
    rows[step:], rows[:, sample:] = 0, 0
    model = Loop(lambda model, spikes: None)
    model.register_forward_pre_hook(lambda _, args: (args[0] * rows[: len(args[0]), : args[0].shape[1]],))
    return model


@pytest.mark.parametrize(
    "held",
    [
        table(steps=24, step=13),
        table(samples=24, sample=5),
        table(steps=24, step=18),
        table(samples=24, sample=12),
    ],
)
def test_tables_that_end_before_the_longest_compared_run_are_compared_as_far_as_they_go(held: Loop) -> None:
    with pytest.raises(CaptureError):
        stl.capture(held, (X + X.roll(3, 0) > 0).float())


@pytest.mark.parametrize(("sizes", "run"), [({"steps": 24}, "24 steps of 4 samples"), ({"samples": 24}, "24 samples")])
def test_a_table_of_equal_rows_is_captured_and_compared_at_its_size(sizes: dict[str, int], run: str) -> None:
    proof = stl.capture(table(**sizes), X).proof
    assert proof is not None
    assert run in proof.runs


@pytest.mark.parametrize("gain", [0.7, 0.8, 1.2, 1.3])
def test_a_gain_of_runs_of_one_step_is_refused_though_little_fires_in_one(gain: float) -> None:
    model = Loop(lambda model, spikes: None)
    model.register_forward_pre_hook(lambda _, args: (args[0] * (gain if len(args[0]) < 3 else 1.0),))
    with pytest.raises(CaptureError, match="something else on 1 step than on x"):
        stl.capture(model, X)


class Product(nn.Module):
    """Counts of up to ``cap`` spikes, after which the potential is multiplied by 1 - s."""

    def __init__(self, cap: int) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.enter, self.cap = nn.Linear(8, 6), cap

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 6), []
        for step in x:
            v = 0.5 * v + 2 * self.enter(step)
            out.append(torch.floor(v / 0.75).clamp(0, self.cap))
            v = (1 - out[-1]) * v
        return torch.stack(out)


def test_counts_that_reset_by_a_product_are_a_cell_where_x_shows_one_spike_at_most() -> None:
    x = X * (torch.arange(8) == 0)
    assert Product(4)(x).unique().tolist() == [0, 1]
    require_cell(Product(4), x, X)


def test_at_most_one_spike_resets_by_a_product() -> None:
    model, x = Product(1), (torch.rand(12, 4, 8, generator=torch.Generator().manual_seed(1)) < 0.8).float()
    assert (stl.capture(model, X).simulate(x.numpy()).y == model(x).detach().numpy()).all()


@pytest.mark.parametrize("kept", [lambda y: y[:20], lambda y: y[-20:], lambda y: y[:13]])
def test_a_slice_that_takes_all_of_x_and_would_not_of_more_is_refused(kept: Callable[[Tensor], Tensor]) -> None:
    class Cut(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(kept(x))

    model = Cut(lambda model, spikes: None)
    with pytest.raises(CaptureError, match=r"of 12 steps this slice takes all, and of more .* take all \(\[:\]\)"):
        stl.capture(model, X)


def test_late_steps_and_many_samples_of_a_large_network_are_tried_too() -> None:
    class Large(nn.Module):
        def __init__(self, late: int, many: int) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.enter, self.late, self.many = nn.Conv2d(2, 16, 3, padding=1), late, many

        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros(x.shape[1], 16, 64, 64), []
            for t, step in enumerate(x):
                v = 0.5 * v + self.enter(step)
                out.append((v > (2.0 if t >= self.late or x.shape[1] >= self.many else 0.5)).float())
                v = v * (1 - out[-1])
            return torch.stack(out)

    x = (torch.rand(6, 3, 2, 64, 64, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    for late, many in ((15, 1000), (1000, 10)):
        with pytest.raises(CaptureError, match=r"something else on .* than on x; does a branch depend on the step"):
            stl.capture(Large(late, many), x)


def test_numbers_drawn_from_numpy_are_refused_however_small() -> None:
    class Noisy(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 1e-9 * np.random.random())  # noqa: NPY002

    with pytest.raises(CaptureError, match="forward draws random numbers from numpy or Python"):
        stl.capture(Noisy(lambda model, spikes: None), X)


@pytest.mark.push(5)
@pytest.mark.parametrize("unit", [1e-3, 1e-6, 1e-9, 2.0**-40])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none", "half"])
def test_a_threshold_in_a_small_unit_has_its_reset(unit: float, reset: str) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(4)
            self.enter = nn.Linear(8, 6, bias=False)
            self.enter.weight.data.abs_()

        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros(x.shape[1], 6), []
            for step in x:
                v = 0.5 * v + unit * self.enter(step)
                out.append((v >= unit).float())
                taken = {"subtract": unit * out[-1], "zero": v * out[-1], "none": 0.0, "half": 0.5 * unit * out[-1]}
                v = v - taken[reset]
            return torch.stack(out)

    model, x = Small(), (torch.rand(12, 4, 8, generator=torch.Generator().manual_seed(1)) < 0.7).float()
    net = stl.capture(model, x)
    assert net.program.spiking[0].reset == {"zero": "value", "half": "subtract_delayed"}.get(reset, reset)
    fresh = (torch.rand(12, 4, 8, generator=torch.Generator().manual_seed(2)) < 0.9).float()
    assert (net.simulate(fresh.numpy()).y == model(fresh).detach().numpy()).all()


def _in_a_list() -> Callable[[], int]:
    calls: list[int] = []

    def count() -> int:
        calls.append(0)
        return len(calls)

    return count


def _in_a_generator() -> Callable[[], int]:
    numbers = (k for k in range(10**9))
    return lambda: next(numbers)


def _in_an_iterator() -> Callable[[], int]:
    numbers = itertools.count()
    return lambda: next(numbers)


def _in_a_class() -> Callable[[], int]:
    class Counter:
        calls = 0

    def count() -> int:
        Counter.calls += 1
        return Counter.calls

    return count


def _drawn_by(generator: Any) -> Callable[[], int]:
    """Count past the limit in 1 of 40 calls, by a generator that was seeded once."""
    return lambda: 99 if generator() < 1 / 40 else 0


@pytest.mark.parametrize(
    "counter",
    [
        *[_in_a_list, _in_a_generator, _in_an_iterator, _in_a_class],
        lambda: _drawn_by(random.Random(1).random),
        lambda: _drawn_by(np.random.default_rng(1).random),
    ],
)
def test_state_that_acts_after_many_calls_is_refused(counter: Callable[[], Callable[[], int]]) -> None:
    count = counter()

    class Counts(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if count() < 60 else 3 * x)

    with pytest.raises(CaptureError):
        stl.capture(Counts(lambda model, spikes: None), X)


def test_a_list_of_the_modules_own_that_acts_after_many_calls_is_refused() -> None:
    def appended(model: Any, spikes: Tensor) -> None:
        model.kept.append(torch.zeros(6))
        model.level = 0.5 if len(model.kept) < 60 else 0.1

    model = Loop(appended)
    with pytest.raises(CaptureError, match=r"something else on the same input in call [56]\d;"):
        stl.capture(model, X)
    assert len(model.kept) == 1


def test_what_is_computed_otherwise_with_gradients_is_warned_of() -> None:
    class Doubled(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(2 * x if torch.is_grad_enabled() else x)

    model = Doubled(lambda model, spikes: None)
    with pytest.warns(UserWarning, match="while torch records gradients"):
        net = stl.capture(model, X)
    with torch.no_grad():
        assert (net.simulate(X.numpy()).y == model(X).numpy()).all()


@pytest.mark.parametrize("higher", [0.01, 0.0])
def test_a_few_spikes_that_gradients_change_are_warned_of(higher: float) -> None:
    model = Loop(lambda model, spikes: None, late=lambda t, v: v - higher * torch.is_grad_enabled())
    with pytest.warns(UserWarning, match="while torch records gradients") if higher else nullcontext():
        stl.capture(model, X)


@pytest.mark.parametrize("axis", [0, 1], ids=["steps", "samples"])
def test_what_a_call_of_another_size_leaves_is_refused(axis: int) -> None:
    """The most steps so far, and a number for each number of samples, in the order in which these came."""

    class Sized(Loop):
        def forward(self, x: Tensor) -> Tensor:
            sizes = self.__dict__.setdefault("sizes", {})
            number = sizes.setdefault(x.shape[1], len(sizes))
            self.calls = max(self.calls, len(x))
            return super().forward(x * (number + 1 if axis else self.calls))

    with pytest.raises(CaptureError, match="something else on the same input after another call"):
        stl.capture(Sized(lambda model, spikes: None), X)


def test_a_delay_of_200_steps_beside_the_spikes_is_found_in_12() -> None:
    class Late(Loop):
        def forward(self, x: Tensor) -> Tensor:
            spikes = super().forward(x)
            return torch.stack([s + (spikes[t - 200] if t >= 200 else 0) for t, s in enumerate(spikes)])

    with pytest.raises(CaptureError, match="something else on 256 steps"):
        stl.capture(Late(lambda model, spikes: None), X)


def test_a_branch_on_one_sample_of_several_steps_is_refused() -> None:
    class Doubled(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * (2 if x.shape[1] == 1 < len(x) else 1))

    with pytest.raises(CaptureError, match="something else on 1 sample than on x"):
        stl.capture(Doubled(lambda model, spikes: None), X)


def test_state_that_the_next_size_replaces_is_refused() -> None:
    held: dict[str, Tensor] = {}

    class Keeps(Loop):
        def forward(self, x: Tensor) -> Tensor:
            kept = held.get("v")
            kept = torch.zeros_like(x) if kept is None or kept.shape != x.shape else kept
            held["v"] = kept + 0.5 * x
            return super().forward(x + 0.1 * kept)

    with pytest.raises(CaptureError, match="something else on the same input after another call"):
        stl.capture(Keeps(lambda model, spikes: None), X)


def test_a_branch_on_the_number_of_samples_that_x_has_is_refused() -> None:
    class Of7(Loop):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * 2 if x.shape[1] == 7 else x)

    with pytest.raises(CaptureError, match="something else on x"):
        stl.capture(Of7(lambda model, spikes: None), X.repeat(1, 2, 1)[:, :7])
