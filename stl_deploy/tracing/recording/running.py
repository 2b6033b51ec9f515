"""Record a run of a model under each of the four positions of time, and pick its output among the returned values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from stl_deploy._util.remedies import option, remedy
from stl_deploy._util.units import counted
from stl_deploy._util.untrusted import one_line
from stl_deploy.config.options import Time
from stl_deploy.errors import CaptureError, InputError
from stl_deploy.nn.fused.switch import paused
from stl_deploy.tracing.recording.decomposed import Decomposed
from stl_deploy.tracing.recording.model_state import (
    Weights,
    as_found,
    bring_to_rest,
    compiles,
    keeps_other_batch,
    names_of,
    shake,
)
from stl_deploy.tracing.recording.operations import Op
from stl_deploy.tracing.recording.packed_inputs import Packed
from stl_deploy.tracing.recording.recorder import Recorder, Undrawn
from stl_deploy.tracing.recording.samples_first import samples_first
from stl_deploy.tracing.recording.source_lines import raised_at
from stl_deploy.tracing.unrolling.layout import BATCH, TIME, Layout
from stl_deploy.tracing.unrolling.rules import read
from stl_deploy.tracing.unrolling.unroll import Flow, Unroller

R = TypeVar("R")


@dataclass(frozen=True)
class Call:
    """Convention of a model's call: position of time, reset, and the chosen output.

    timeless: forward keeps no state, and is called at several steps to tell so. asked: the position that is named.
    drawn: the number in the place of random ones; None refuses these. decomposed: spells composite operations out.

    Raises InputError for an unknown position of time.
    """

    time: Time = "first"
    reset: Callable[[], Any] | None = None
    output: Pick = None
    timeless: bool = False
    drawn: float | None = None
    decomposed: Decomposed | None = None

    @property
    def asked(self) -> Time:  # noqa: D102
        return "none" if self.timeless else self.time

    def __post_init__(self) -> None:
        if self.time not in get_args(Time):
            known = ", ".join(map(repr, get_args(Time)))
            raise InputError(f"time: expected {known}; found {self.time!r} (batch-first x [B, T, ...] is 'second')")


@dataclass(eq=False)
class Recorded:
    """Result of a run: its output's nodes (one for each step, or one without time) and their layout.

    left_aside: tensors that the model returns besides. states: forward's arguments that pass state between steps.
    """

    output: Flow
    unroller: Unroller
    tensor: Tensor
    left_aside: int
    states: tuple[str, ...] = ()


def run(model: nn.Module, x: Tensor, call: Call, *, gradients: bool = False) -> Tensor:
    """Return the model's output from rest; for ``time="step"`` stacked over steps. gradients: whether torch records."""
    with as_found(model), torch.set_grad_enabled(gradients):
        to_eval(model)
        bring_to_rest(model, call.reset)
        if call.time == "step":
            outputs = [pick(returned, call.output).clone() for returned in stepped(model, x, call)]
            return _stacked(outputs).detach()
        return pick(called(model, x.clone(), call), call.output).detach()


def record(model: nn.Module, x: Tensor, call: Call, steps: int, *, keep: bool = False) -> Recorded:
    """Record a run of ``model`` from rest on ``x`` as `capture` takes it, with ``steps`` time steps.

    keep: whether results of comparisons and roundings are kept (``Node.kept``). Raises CaptureError for what has no
    form in a graph.
    """
    return _again_if_loaded(lambda: _recorded(model, x, call, steps, keep=keep))


def _recorded(model: nn.Module, x: Tensor, call: Call, steps: int, *, keep: bool) -> Recorded:
    recorder = Recorder(names_of(model), Weights(model), keep=keep)
    batch = x.shape[0] if call.time in ("second", "inside") else x.shape[1]
    unroller = Unroller(steps, batch)
    with as_found(model), torch.no_grad(), paused():
        to_eval(model)
        bring_to_rest(model, call.reset)
        shake(int(keep))
        parts = list(x.unbind(0)) if call.time == "step" else [x]
        passed = PassedState.of(model, call) if call.time == "step" else None
        values, tensors = [], []
        for t, part in enumerate(part.clone() for part in parts):  # forward may write into it
            given = recorder.input(part)
            one = call.time == "step"
            unroller.input(given, _layout(part, "inside" if one else call.time), t if one else None)
            with recorder.watching() as leaks:
                try:
                    returned = called(model, part, call, passed)
                except CaptureError as error:
                    if error.__cause__ is not None and leaks.watched:  # other code than torch's was given one
                        raise recorder.leaving(leaks.watched, error.line) from None
                    raise
                _require_one_shape(returned, steps, call)
                made = pick(returned, call.output)
                values.append(recorder.output(made))
            tensors.append(made.clone())  # v += x of the next call writes into an output that is the state
        read(unroller, recorder.ops, values)
    flows, besides = [unroller.flow(value) for value in values], left_aside(returned, call.output)
    if call.time != "step":
        return Recorded(flows[0], unroller, tensors[0].detach(), besides)
    output = Flow(tuple(flow.nodes[0] for flow in flows), ((TIME,), *flows[0].layout))
    states = () if passed is None else tuple(passed.values)
    return Recorded(output, unroller, _stacked(tensors).detach(), besides, states)


def _stacked(outputs: list[Tensor]) -> Tensor:
    """Return the outputs of all steps; raise CaptureError if they have several shapes."""
    for t, output in enumerate(outputs):
        if output.shape != outputs[0].shape:
            raise CaptureError(
                f"expected outputs of one shape at every step; found {list(outputs[0].shape)} at step 0 and "
                f"{list(output.shape)} at step {t}; make the state at rest of as many samples as x has "
                "(torch.zeros_like)"
            )
    return torch.stack(outputs)


def recorded_ops(model: nn.Module, x: Tensor, call: Call) -> list[Op]:
    """Return the operations of one run, without their effect on time."""
    return _again_if_loaded(lambda: _ops(model, x, call))


def _ops(model: nn.Module, x: Tensor, call: Call) -> list[Op]:
    recorder = Recorder(names_of(model), Weights(model))
    with as_found(model), torch.no_grad(), paused():
        to_eval(model)
        bring_to_rest(model, call.reset)
        given = x.clone()
        recorder.input(given)
        with recorder.watching():
            called(model, given, call)
    return recorder.ops


def _again_if_loaded(run: Callable[[], R]) -> R:
    """Run once more where the run loads what torch.compile needs: `as_found` switches it off from then on."""
    loaded = compiles()
    try:
        made = run()
    except Exception:
        if loaded or not compiles():
            raise
    else:
        if loaded or not compiles():
            return made
    return run()


def to_eval(model: nn.Module) -> None:
    """Put a model into eval mode; raise CaptureError for one that has none."""
    try:
        model.eval()
    except NotImplementedError as error:
        raise CaptureError(
            f"a {type(model).__name__} cannot be put into eval mode ({one_line(error, 100)}); capture the module that "
            "it was made from"
        ) from None


def stepped(model: nn.Module, x: Tensor, call: Call) -> Iterator[Any]:
    """Yield the model's result at each step, with its returned state passed on to the next step."""
    passed = PassedState.of(model, call)
    for step in x.unbind(0):
        yield called(model, step.clone(), call, passed)


def called(model: nn.Module, x: Tensor, call: Call, passed: PassedState | None = None) -> Any:
    """Return what forward makes of ``x`` and of the state that was passed; raise CaptureError where it fails."""
    try:
        with ExitStack() as modes:
            if call.drawn is not None:
                modes.enter_context(Undrawn(call.drawn))
            if call.decomposed is not None:
                modes.enter_context(samples_first(call.decomposed))
                modes.enter_context(call.decomposed)
            if passed is None:
                return model(x)
            returned = model(x, **passed.values)
            passed.take(returned, call.output)
            return returned
    except CaptureError:
        raise
    except (Exception, SystemExit) as error:
        instead = "mend forward, or give x as forward takes it"
        instead += "" if call.timeless else f" under {option('time', call.asked)}"
        if isinstance(error, TypeError) and "required positional argument" in str(error) and not call.timeless:
            instead = "give a forward of several inputs a tuple of them as x, or a dict by argument"
        for name, each in model.named_parameters() if "type" in str(error) else ():
            if not each.is_floating_point():
                instead = f"parameter '{name}' holds integers: make them floats by .float()"
                break
            if each.dtype != x.dtype:
                held, given = (str(dtype).removeprefix("torch.") for dtype in (each.dtype, x.dtype))
                instead = f"parameter '{name}' is {held} and x {given}: give model.float(), for graphs are float32"
                break
        if call.time == "step" and keeps_other_batch(model, x.shape[0], str(error)):
            instead = "it keeps state of another batch: clear it in a method reset()"
            instead += remedy(cli="", python=", or give reset= what clears it")
        shown = model.shown(x) if isinstance(model, Packed) else f"an input of shape {list(x.shape)}"
        raise CaptureError(
            f"the model fails on {shown}: {type(error).__name__}: {one_line(error, 200)}; {instead}",
            line=raised_at(error),
        ) from error


def _require_one_shape(returned: Any, steps: int, call: Call) -> None:
    """Raise CaptureError for a list of one tensor for each step, whose shapes differ."""
    if call.time not in ("first", "second") or call.output is not None or not isinstance(returned, list):
        return
    shapes = [list(item.shape) for item in returned if isinstance(item, Tensor)]
    if len(shapes) != steps or len(returned) != steps or any(steps in shape[:2] for shape in shapes):
        return
    other = next((shape for shape in shapes if shape != shapes[0]), None)
    if other is not None:
        raise CaptureError(
            f"expected outputs of one shape at every step; found {shapes[0]} and {other} in the list that the model "
            "returns; a graph's output has one shape: return [T, B, ...], or choose a tensor by "
            + remedy(cli="--pick INDEX", python="output=")
        )


def _layout(x: Tensor, time: Time) -> Layout:
    leading = {"first": ((TIME,), (BATCH,)), "second": ((BATCH,), (TIME,))}.get(time, ((BATCH,),))
    sample = tuple(() if size == 1 else (size,) for size in x.shape[len(leading) :])
    return (*leading, *sample)


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass
class PassedState:
    """The state that forward takes after x, by argument name.

    names: the arguments that have a default which is no option (a bool or a string). variadic: ``*args`` or
    ``**kwargs`` is among them. values: what they get at the next step; none before the first.
    """

    names: tuple[str, ...]
    variadic: bool
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, call: Call) -> PassedState | None:
        """Return the state arguments of a model's forward; None if it takes x alone, or has no time.

        Raises CaptureError for another argument that has no default.
        """
        if call.timeless:
            return None
        try:
            first, *others = inspect.signature(model.forward).parameters.values()
        except (TypeError, ValueError):
            return None
        for arg in others:
            if arg.kind not in _VARIADIC and arg.default is arg.empty:
                raise CaptureError(
                    f"forward expects '{arg.name}' besides x, and {option('time', 'step')} gives it x alone at the "
                    f"first step; give it a default, {arg.name}=None, and make the state at rest from that; or, if it "
                    "is an input, give "
                    + remedy(cli="stl_deploy.capture in Python", python="capture")
                    + " a tuple of both"
                )
        states = [arg for arg in others if arg.kind not in _VARIADIC and not isinstance(arg.default, bool | str)]
        variadic = [arg for arg in (first, *others) if arg.kind in _VARIADIC]
        names = [arg.name for arg in states] + [str(arg).partition(":")[0] for arg in variadic]
        return cls(tuple(names), bool(variadic)) if names else None

    def take(self, result: Any, output: Pick) -> None:
        """Keep the state that forward returned beside its output.

        Raises CaptureError where what it returned does not match its arguments.
        """
        named = fields_of(result)
        if isinstance(named, Mapping) and set(self.names) <= set(named):
            self.values = {name: named[name] for name in self.names}
            return
        returned = list(result) if isinstance(result, tuple | list) else []
        if len(list(tensors_in(result))) == 1 and len(returned) != 1 + len(self.names):
            return
        at = output if isinstance(output, int) else 0
        if len(returned) != 1 + len(self.names) or not -len(returned) <= at < len(returned) or self.variadic:
            count = len(named) if isinstance(named, Mapping | tuple | list) else 1
            raise CaptureError(
                f"forward takes {', '.join(self.names)} besides x and returns {counted(count, 'value')}, so "
                f"{option('time', 'step')} cannot tell which of them is the state of the next step: return "
                f"{', '.join(('output', *self.names))}, or keep the state in the module and clear it in reset()"
            )
        del returned[at]
        self.values = dict(zip(self.names, returned, strict=True))


Pick = int | str | None
"""The index or name of an output; None: the first tensor."""


def pick(returned: Any, output: Pick) -> Tensor:
    """Return one tensor of a model's result: by index or name, or the first.

    Raises CaptureError if there is no such output, or it is no tensor.
    """
    if output is not None:
        try:
            returned = [returned][output] if isinstance(returned, Tensor) else fields_of(returned)[output]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            what = _described(returned)
            instead = "name one of its outputs"
            if isinstance(returned, Tensor):
                what, instead = "one tensor", "leave it out"
            raise CaptureError(
                f"{remedy(cli='--pick ', python='output=')}{output!r}: the model returns {what}; {instead}"
            ) from None
        if isinstance(returned, list | tuple) and all(isinstance(item, Tensor) for item in returned):
            return torch.stack(list(returned))
        if isinstance(returned, Tensor):
            return returned
    if _one_for_each_step(returned):
        return torch.stack(returned)
    first = next(tensors_in(returned), None)
    if first is None:
        raise CaptureError(f"the model returns {_described(returned)}, without a tensor; return one from forward")
    return first


def left_aside(returned: Any, output: Pick) -> int:
    """Count the returned tensors besides `pick`'s default one."""
    return 0 if output is not None or _one_for_each_step(returned) else len(list(tensors_in(returned))) - 1


def _one_for_each_step(returned: Any) -> bool:
    alike = isinstance(returned, list) and len({getattr(item, "shape", None) for item in returned}) == 1
    return alike and len(returned) > 2 and isinstance(returned[0], Tensor)


def fields_of(returned: Any) -> Any:
    """Return a dataclass, or a named tuple, as a dict of its fields; other values unchanged."""
    if isinstance(returned, tuple) and hasattr(returned, "_asdict"):
        return _Named(returned._asdict())
    if not is_dataclass(returned) or isinstance(returned, Mapping):
        return returned
    return {field.name: getattr(returned, field.name) for field in fields(returned)}


class _Named(dict[str, Any]):
    """Fields that also have a place."""

    def __missing__(self, place: int) -> Any:
        return list(self.values())[place]


def tensors_in(returned: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested tuples, lists, mappings and dataclasses."""
    if isinstance(returned, Tensor):
        yield returned
        return
    returned = fields_of(returned)
    items = (
        returned.values() if isinstance(returned, Mapping) else returned if isinstance(returned, list | tuple) else ()
    )
    for item in items:
        yield from tensors_in(item)


def _described(returned: Any) -> str:
    returned = fields_of(returned)
    if isinstance(returned, Mapping):
        return f"a dict with {', '.join(map(repr, returned))}"
    if isinstance(returned, list | tuple):
        return f"{len(returned)} values"
    return f"an object of class {type(returned).__name__}"
