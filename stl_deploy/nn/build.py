"""Build modules from layer specifications, with shapes resolved and order checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from stl_deploy._util.arrays import output_size
from stl_deploy.config.options import LearningMode
from stl_deploy.config.schema import (
    BuiltSpec,
    ConvSpec,
    DropoutSpec,
    FlattenSpec,
    InnerSpec,
    LifSpec,
    LinearSpec,
    LiSpec,
    NeuronConfig,
    NormSpec,
    PoolSpec,
    ResidualSpec,
    RlifSpec,
    SpikingSpec,
    VoteSpec,
)
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.nn.adapting import ALIF
from stl_deploy.nn.layers import StepNorm1d, StepNorm2d, Sum, SumPool2d, Vote
from stl_deploy.nn.neuron import LI, LIF, RLIF

_MOST_NUMBERS = 2**29
"""Weights, or outputs per sample and step, that one layer may have (2 GiB of float32)."""


@dataclass
class Build:
    """State of building: the shape so far, the last layer, and whether values are spikes.

    count: layers in all. counted: whether values are spikes or integer sums of spikes.
    """

    neuron: NeuronConfig
    mode: LearningMode
    classes: int
    count: int
    shape: tuple[int, ...]
    previous: BuiltSpec | None = None
    spikes: bool = False
    counted: bool = False
    where: str = field(default="", init=False)

    def fail(self, reason: str) -> ConfigError:
        """Return the error for the layer being built."""
        return ConfigError(f"{self.where}: {reason}")

    def finish(self) -> None:
        """Check that the network is whole."""
        if not isinstance(self.previous, VoteSpec | LiSpec):
            raise ConfigError(
                f"network.{self.count - 1}: the last layer is not a readout; "
                "end with a lif and a vote, or with a linear and an li"
            )


def build_layer(build: Build, place: str, spec: BuiltSpec) -> nn.Module:
    """Return the module of one layer and advance ``build``. Raises ConfigError naming the layer and the shapes.

    place: of the layer, as in ``network.3``. A residual block gives the sum of its branches (see `Branches`).
    """
    build.where = f"{place} ({spec.kind})"
    if isinstance(build.previous, VoteSpec | LiSpec):
        raise build.fail(f"a layer after the {build.previous.kind}; the readout is the last layer")
    match spec:
        case ConvSpec():
            module = _conv(build, spec)
        case LinearSpec():
            module = _linear(build, spec)
        case NormSpec():
            module = _norm(build, spec)
        case SpikingSpec():
            module = _lif(build, spec)
        case PoolSpec():
            module = _pool(build, spec)
        case FlattenSpec():
            module, build.shape = nn.Flatten(1), (math.prod(build.shape),)
        case DropoutSpec():
            module = nn.Dropout(spec.p)
        case VoteSpec():
            module = _vote(build, spec)
        case LiSpec():
            module = _li(build, spec)
        case ResidualSpec():
            module = Sum()
    _note_values(build, spec)
    build.previous = spec
    return module


def _note_values(build: Build, spec: BuiltSpec) -> None:
    """Record whether the layer's outputs are 0 or 1, or sums of these, in evaluation mode."""
    fires = several = False
    if isinstance(spec, SpikingSpec):
        fires, several = True, _neurons_of(build, spec).multi_spike > 1
    kept = isinstance(spec, FlattenSpec | DropoutSpec)
    op = spec.op if isinstance(spec, PoolSpec) else None
    # Max pools keep 0 and 1; sum pools make counts of them; averages are neither.
    build.spikes = (fires and not several) or (build.spikes and (kept or op == "max"))
    build.counted = fires or isinstance(spec, ResidualSpec) or (build.counted and (kept or op in ("max", "sum")))


class Branches:
    """The two branches of a residual block, built one after the other from the same start.

    Raises ConfigError where the block's input is no spikes, a branch does not end in a lif, or their shapes differ.
    """

    def __init__(self, build: Build, place: str) -> None:
        build.where = f"{place} (residual)"
        if not build.counted:
            raise build.fail("what arrives is neither spikes nor sums of spikes; put the block after a lif")
        self._build, self._where = build, build.where
        self._start = (build.shape, build.previous, build.spikes, build.counted)
        self._shapes: list[tuple[int, ...]] = []

    def enter(self) -> None:
        """Return to the block's input."""
        self._build.shape, self._build.previous, self._build.spikes, self._build.counted = self._start

    def leave(self, branch: Sequence[InnerSpec]) -> None:
        """End a branch, empty or built."""
        if branch and not isinstance(branch[-1], LifSpec):
            raise ConfigError(
                f"{self._where}: a branch ends in {branch[-1].kind}; spikes are added, so end it in a lif"
            )
        self._shapes.append(self._build.shape)
        if self._shapes[0] != self._build.shape:
            shown = " and ".join(_x(shape) for shape in self._shapes)
            raise ConfigError(f"{self._where}: expected one shape of branch and shortcut; found {shown}")


def _conv(build: Build, spec: ConvSpec) -> nn.Module:
    channels, height, width = _spatial(build)
    sizes = tuple(output_size(size, spec.kernel, spec.stride, 2 * spec.padding) for size in (height, width))
    if min(sizes) < 1:
        raise build.fail(f"kernel {spec.kernel} with padding {spec.padding} does not fit into {_x(build.shape)}")
    _check_size(build, spec.channels * channels * spec.kernel**2, "weights")
    build.shape = (spec.channels, *sizes)
    _check_size(build, math.prod(build.shape), "outputs per sample")
    return nn.Conv2d(channels, spec.channels, spec.kernel, spec.stride, spec.padding, bias=spec.bias)


def _linear(build: Build, spec: LinearSpec) -> nn.Module:
    if len(build.shape) != 1:
        raise build.fail(f"expected an input of one axis; found {_x(build.shape)}; put a flatten before it")
    (features,) = build.shape
    _check_size(build, features * spec.features, "weights")
    build.shape = (spec.features,)
    return nn.Linear(features, spec.features, bias=spec.bias)


def _norm(build: Build, spec: NormSpec) -> nn.Module:
    if not isinstance(build.previous, ConvSpec | LinearSpec):
        raise build.fail("a norm folds into the conv or linear right before it, and there is none")
    kinds = (StepNorm1d, StepNorm2d) if spec.per_step else (nn.BatchNorm1d, nn.BatchNorm2d)
    return kinds[len(build.shape) == 3](build.shape[0], eps=spec.eps, momentum=spec.momentum)


def _lif(build: Build, spec: SpikingSpec) -> nn.Module:
    if isinstance(spec, RlifSpec) and len(build.shape) != 1:
        raise build.fail(
            f"expected an input of one axis, as recurrent weights lead from all to all; found {_x(build.shape)}"
        )
    if build.mode == "ann":
        return nn.Identity() if build.where == f"network.{build.count - 2} ({spec.kind})" else nn.ReLU()
    neuron = _neurons_of(build, spec)
    by_shape = neuron.linear_granularity if len(build.shape) == 1 else neuron.conv_granularity
    kind, more = LIF if isinstance(spec, LifSpec) else RLIF, dict[str, Any]()
    if (adaptation := neuron.adaptation) is not None:
        if isinstance(spec, RlifSpec):
            raise build.fail("thresholds of recurrent populations do not adapt; use lif, or adaptation: null")
        kind = ALIF
        more = {"adaptation_decay": adaptation.decay, "jump": adaptation.jump, "subtracts": adaptation.subtracts}
    try:
        return kind(
            build.shape,
            threshold=neuron.threshold,
            jitter=neuron.jitter,
            granularity=spec.granularity or by_shape,
            parametrisation=neuron.parametrisation,
            decay=neuron.decay,
            learn_decay=neuron.learn_decay,
            surrogate_name=neuron.surrogate,
            reset=neuron.reset,
            detach_reset=neuron.detach_reset,
            synapse_decay=neuron.synapse_decay,
            multi_spike=neuron.multi_spike,
            decay_form=neuron.decay_form,
            **more,
        )
    except InputError as error:
        raise build.fail(str(error)) from None


def _neurons_of(build: Build, spec: SpikingSpec | LiSpec) -> NeuronConfig:
    """Return the settings of one population: its own values before the network's."""
    own = {key: value for key, value in spec if key in NeuronConfig.model_fields and value is not None}
    return build.neuron.model_copy(update=own)


def _pool(build: Build, spec: PoolSpec) -> nn.Module:
    channels, height, width = _spatial(build)
    if spec.op == "max" and not build.spikes:
        raise build.fail("max pooling of values that are not spikes cannot be deployed; put it after a lif, or use avg")
    stride = spec.stride or spec.kernel
    sizes = tuple(output_size(size, spec.kernel, stride) for size in (height, width))
    if min(sizes) < 1:
        raise build.fail(f"kernel {spec.kernel} does not fit into {_x(build.shape)}")
    build.shape = (channels, *sizes)
    kinds: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d, "sum": SumPool2d}
    return kinds[spec.op](spec.kernel, stride)


def _vote(build: Build, spec: VoteSpec) -> nn.Module:
    if not isinstance(build.previous, SpikingSpec):
        raise build.fail("votes are counted from spikes; put the vote right after a lif")
    wanted = build.classes * spec.population
    if build.shape != (wanted,):
        raise build.fail(
            f"the input is {_x(build.shape)}; {build.classes} classes of {spec.population} neurons need {wanted}"
        )
    build.shape = (build.classes,)
    return Vote(spec.population)


def _li(build: Build, spec: LiSpec) -> nn.Module:
    if not isinstance(build.previous, LinearSpec | NormSpec | DropoutSpec):
        raise build.fail("the membrane readout integrates weighted spikes; put it right after a linear")
    if build.shape != (build.classes,):
        raise build.fail(f"expected one neuron for each of {build.classes} classes as input; found {_x(build.shape)}")
    if build.mode == "ann":
        return nn.Identity()
    try:
        neuron = _neurons_of(build, spec)
        return LI(
            build.shape,
            decay=neuron.decay,
            learn_decay=neuron.learn_decay,
            synapse_decay=neuron.synapse_decay,
            decay_form=neuron.decay_form,
        )
    except InputError as error:
        raise build.fail(str(error)) from None


def _check_size(build: Build, count: int, what: str) -> None:
    """Refuse sizes beyond any machine's memory before allocation."""
    if count > _MOST_NUMBERS:
        raise build.fail(f"expected at most {_MOST_NUMBERS:,} {what}; found {count:,}")


def _spatial(build: Build) -> tuple[int, int, int]:
    if len(build.shape) != 3:
        raise build.fail(f"expected an input of channels x height x width; found {_x(build.shape)}")
    channels, height, width = build.shape
    return channels, height, width


def _x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
