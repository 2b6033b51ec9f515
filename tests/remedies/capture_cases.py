"""Remedies of modules that capture refuses, and of x in another form: each is reached and followed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import run
from stl_deploy.tracing import Call
from stl_deploy.tracing.time_axis import axis_warnings
from tests.pipeline.test_time_axis import Loop, Step, X, first
from tests.remedies.room import Remedy

TB = X.swapaxes(0, 1).contiguous()


class Neurons(nn.Module):
    """Neurons written by hand whose output is made by ``made``, of their spikes and potentials ``[T, B, 3]``."""

    def __init__(self, made: Callable[[Tensor, Tensor], Any], *, start: Callable[[], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.made, self.start = nn.Linear(4, 3), made, start
        self.v = torch.zeros(())

    def forward(self, x: Tensor) -> Any:
        v = self.v if self.start is None else self.start()
        spikes, potentials = [], []
        for now in self.weights(x):
            v = 0.5 * v + now
            potentials.append(v)
            spikes.append((v > 0.05).float())
            v = v * (1 - spikes[-1])
        self.v = v.detach() + 100
        return self.made(torch.stack(spikes), torch.stack(potentials))


def _zeros() -> Tensor:
    return torch.zeros(())


def _drawn() -> Tensor:
    return torch.rand(())


def _neurons(made: Callable[[Tensor, Tensor], Any]) -> nn.Module:
    return Neurons(made, start=_zeros)


class Passed(nn.Module):
    """One step, whose state is an argument and returned as ``returned`` says."""

    def __init__(self, returned: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.returned = nn.Linear(4, 3), returned

    def forward(self, x: Tensor, v: Tensor | None = None) -> Any:
        v = 0.5 * (torch.zeros(()) if v is None else v) + self.weights(x)
        spikes = (v > 0.05).float()
        return self.returned(spikes, v * (1 - spikes))


class Required(Passed):
    def forward(self, x: Tensor, v: Tensor) -> Any:
        return super().forward(x, v)


class Gains(nn.Module):
    """Neurons whose input has a gain of its own in each channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.gains = nn.Linear(4, 3), torch.linspace(0.5, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros(()), []
        for now in self.weights(x):
            v = 0.5 * v + self.gains * now
            spikes.append((v > 0.05).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)


class KeepsBatch(Step):
    """A step whose potentials outlive its reset, and have the size of another batch."""

    def __init__(self) -> None:
        super().__init__()
        self.v = torch.zeros(17, 5)

    def reset(self) -> None:
        return


class ResetOfOne(Step):
    def reset(self, v: Tensor) -> None:
        return


class Repeats(Neurons):
    """Neurons that read one input at each of eight steps."""

    def __init__(self) -> None:
        super().__init__(_spikes, start=_zeros)

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.expand(8, *x.shape))


class OfTwo(Neurons):
    """Neurons that read the sum of two inputs."""

    def __init__(self) -> None:
        super().__init__(_spikes, start=_zeros)

    def forward(self, left: Tensor, right: Tensor) -> Any:
        return super().forward(left + right)


def _spikes(spikes: Tensor, _: Tensor) -> Tensor:
    return spikes


def _warned(model: nn.Module, x: Tensor) -> str:
    return "\n".join(axis_warnings(model, x, Call("first"), Program((), 1.0)))


def _of_two() -> Program:
    return stl.capture(OfTwo(), (TB, TB), verify=False).program


def _captured(model: nn.Module, x: Tensor, **options: Any) -> stl.SpikingGraph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stl.capture(model, x, **options)


IMAGES = torch.ones(4, 6, 1, 6, 6)
CAPTURES = (
    Remedy(
        "integers/by_fold.py:_folds",
        lambda room: _captured(Gains(), TB).export(room.new("net.net"), x=TB),
        'fold the network: net.fold(thresholds="weights")',
        "fold the network: stl-deploy fold SOURCE --thresholds weights -o FOLDED.nir",
        lambda room: _captured(Gains(), TB).fold(thresholds="weights").export(room.new("net.net"), x=TB),
    ),
    Remedy(
        "tracing/recording/running.py:called",
        lambda room: _captured(_neurons(lambda s, v: s.spiked), TB),  # type: ignore[attr-defined]
        "mend forward, or give x as forward takes it under time='first'",
        "mend forward, or give x as forward takes it under --time first",
        lambda room: _captured(_neurons(_spikes), TB),
    ),
    Remedy(
        "tracing/recording/running.py:called",
        lambda room: _captured(KeepsBatch(), IMAGES, time="step"),
        "clear it in a method reset(), or give reset= what clears it",
        "it keeps state of another batch: clear it in a method reset()",
        lambda room: _captured(Step(), IMAGES, time="step"),
    ),
    Remedy(
        "tracing/recording/repeatable.py:require_repeatable",
        lambda room: _captured(Neurons(_spikes), TB),
        "in a method reset(), or give reset=...",
        "start from rest in forward or in a method reset()",
        lambda room: _captured(_neurons(_spikes), TB),
    ),
    Remedy(
        "tracing/recording/recorder.py:_operation",
        lambda room: _captured(Neurons(_spikes, start=_drawn), TB),
        "where states start from them, give start='zeros'",
        "where states start from them, give --start zeros",
        lambda room: _captured(Neurons(_spikes, start=_drawn), TB, start="zeros"),
    ),
    Remedy(
        "tracing/trace.py:require_drawn_starts",
        lambda room: _captured(_neurons(lambda s, v: s * (torch.rand(s.shape) < 0.5)), TB, start="zeros"),
        "start='zeros' is for those from which states start; draw in training only",
        "--start zeros is for those from which states start; draw in training only",
        lambda room: _captured(_neurons(lambda s, v: s), TB, start="zeros"),
    ),
    Remedy(
        "tracing/recording/running.py:_require_one_shape",
        lambda room: _captured(_neurons(lambda s, v: [y[:, : 2 + (i > 0)] for i, y in enumerate(s)]), TB),
        "return [T, B, ...], or choose a tensor by output=",
        "return [T, B, ...], or choose a tensor by --pick INDEX",
        lambda room: _captured(_neurons(_spikes), TB),
    ),
    Remedy(
        "tracing/recording/running.py:of",
        lambda room: _captured(Required(lambda s, v: (s, v)), TB, time="step"),
        "time='step' gives it x alone at the first step; give it a default, v=None",
        "--time step gives it x alone at the first step; give it a default, v=None",
        lambda room: _captured(Passed(lambda s, v: (s, v)), TB, time="step"),
    ),
    Remedy(
        "tracing/recording/running.py:take",
        lambda room: _captured(Passed(lambda s, v: (s, v, s)), TB, time="step"),
        "time='step' cannot tell which of them is the state of the next step: return output, v",
        "--time step cannot tell which of them is the state of the next step: return output, v",
        lambda room: _captured(Passed(lambda s, v: (s, v)), TB, time="step"),
    ),
    Remedy(
        "tracing/recording/running.py:pick",
        lambda room: _captured(_neurons(lambda s, v: (s, v)), TB, output=2),
        "output=2: the model returns",
        "--pick 2: the model returns",
        lambda room: _captured(_neurons(lambda s, v: (s, v)), TB, output=0),
    ),
    Remedy(
        "tracing/recording/running.py:pick",
        lambda room: _captured(_neurons(_spikes), TB, output=1),
        "output=1: the model returns one tensor; leave it out",
        "--pick 1: the model returns one tensor; leave it out",
        lambda room: _captured(_neurons(_spikes), TB),
    ),
    Remedy(
        "tracing/recording/model_state.py:_call",
        lambda room: _captured(ResetOfOne(), TB, time="step"),
        "fails: TypeError: ResetOfOne.reset() missing 1 required positional argument: 'v'; give reset= a callable",
        "fails: TypeError: ResetOfOne.reset() missing 1 required positional argument: 'v'; mend it, for it is called",
        lambda room: _captured(Step(), IMAGES, time="step"),
    ),
    Remedy(
        "graph/run.py:_by_name",
        lambda room: run(_of_two(), TB.numpy()),
        "(a dict: {'right': ..., 'left': ...}; in an npz file x__right, x__left)",
        "(in an npz file: x__right, x__left)",
        lambda room: run(_of_two(), {"left": TB.numpy(), "right": TB.numpy()}),
    ),
    Remedy(
        "graph/run.py:_steps_inside",
        lambda room: run(_captured(Repeats(), TB[0], time="inside").program, TB[0].numpy()),
        "makes its time steps itself (time='inside'), and the graph takes them written out: repeat x",
        "makes its time steps itself (--time inside), and the graph takes them written out: repeat x",
        lambda room: run(_captured(Repeats(), TB[0], time="inside").program, TB[:1].repeat(8, 1, 1).numpy()),
    ),
    Remedy(
        "tracing/trace.py:record_steps",
        lambda room: _captured(_neurons(_spikes), TB[:2]),
        "found 2 with time='first'; give more steps, or the time that x has",
        "found 2 with --time first; give more steps, or the --time that x has",
        lambda room: _captured(_neurons(_spikes), TB),
    ),
    Remedy(
        "tracing/capture.py:_batch",
        lambda room: _captured(_neurons(_spikes), TB[0, 0]),
        "expected at least 3 axes with time='first'",
        "expected at least 3 axes with --time first",
        lambda room: _captured(_neurons(_spikes), TB),
    ),
    Remedy(
        "tracing/time_axis.py:_order_warnings",
        lambda room: _warned(Loop(first), X),
        "swap its first two axes, x.transpose(0, 1)",
        "swap its first two axes",
        lambda room: _captured(Loop(first), X.transpose(0, 1)),
    ),
    Remedy(
        "tracing/time_axis.py:_other_readings",
        lambda room: _captured(Loop(first), TB[:, 0]),
        "which has no axis of samples, give x[:, None], with which",
        "which has no axis of samples, give it one of length 1 as axis 1, with which",
        lambda room: _captured(Loop(first), TB[:, :1]),
    ),
)
"""Remedies of modules that are captured, and of their input."""
