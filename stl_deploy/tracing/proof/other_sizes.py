"""Hold a captured step against its module on other input than x, and on other numbers of steps and samples."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn

from stl_deploy._util.units import counted
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.proof.inputs import beyond, extremes, of_each_kind, permuted, sized, within
from stl_deploy.tracing.proof.layers_and_ends import ComputesOtherwiseError, prove_outputs, prove_replay
from stl_deploy.tracing.proof.module_values import module_values
from stl_deploy.tracing.proof.replay import Values
from stl_deploy.tracing.recognition.exact_types import casts_of_input
from stl_deploy.tracing.time_axis import FAILURES, ignores_later_steps
from stl_deploy.tracing.trace import Traced, batch_axis

_MANY_STEPS, _MANY_SAMPLES = 256, 64
"""Sizes at which branches chosen by the input's shape, and delays longer than x, are looked for."""
_FEWEST_OTHERS = 5
_AFFORDED, _AFFORDED_CALLS = 2**25, 20_000
"""Values, and operations, that such a run may compute."""


class ReplayProof:
    """Runs of the module beside its captured step.

    compared: values so far; done: the runs, in words; fixed_steps: the module makes a fixed number of steps;
    with_gradients: torch recorded gradients in the run of many steps and samples.
    """

    def __init__(self, model: nn.Module, traced: Traced, x: Tensor) -> None:
        self.model, self.traced, self.x = model, traced, x
        self.axis = batch_axis(traced.call)
        self.inside = traced.call.time == "inside"
        self.compared, self.fixed_steps, self.with_gradients = 0, False, False
        self.done: list[str] = []
        self.samples = max(_MANY_SAMPLES, 2 * x.shape[self.axis])
        self.steps = max(_MANY_STEPS, 4 * x.shape[1 - self.axis])
        self._operations = len(traced.steps.signals)
        self._values = sum(signal.node.elements() for signal in traced.steps.signals)

    def run(self) -> Values:
        """Compare spikes on recorded input, and outputs on all of x, on others and on other sizes.

        Returns the values of the step on x; raises CaptureError where they differ, or where the module does not take x.
        """
        self._recorded()
        values = module_values(self.traced, self.x)
        self.compared += prove_outputs(self.model, self.traced, self.x, "x", values)
        self.done.append("x")
        if self.traced.recorded > self.traced.length:  # x was repeated
            few = self.traced.length + 3
            fresh = permuted(sized(self.x, self.axis, samples=_MANY_SAMPLES, steps=few), 6)
            self._succeeds(fresh, counted(few, "step"))
        if not self._many_of_both():
            self._many_steps()
            self._many_samples()
        self._few_of_each()
        self._succeeds(torch.zeros_like(self._as_recorded(sized(self.x, self.axis, samples=2))), "silent input")
        return values

    def _recorded(self) -> None:
        """Compare every spike, with odd numbers of steps and samples where x's are even, else with those of x."""
        kinds = {
            "x": sized(self.x, self.axis, samples=2),
            "fresh input": permuted(sized(self.x, self.axis, samples=2), 0),
            "input within x's range": within(self.x, self.axis),
            "input beyond x's range": beyond(self.x, self.axis),
        }
        kinds = {what: self._as_recorded(given) for what, given in kinds.items()}
        together = torch.cat([*kinds.values()], self.axis)
        steps = None if self.inside else self.traced.recorded + 3
        samples = together.shape[self.axis] + 1 - self.x.shape[self.axis] % 2
        # Equal numbers of steps and samples would hide axes that are swapped.
        samples += 2 * (samples == steps)
        larger = sized(together, self.axis, samples=samples, steps=steps)
        what = f"fresh input of {counted(samples, 'sample')}"
        what += "" if steps is None else f" and {counted(steps, 'step')}"
        try:
            self.compared += prove_replay(self.model, self.traced, larger, what)
            self.done.append(what)
        except FAILURES as error:
            if _differs(error):
                raise
            try:
                (self._succeeds if self.inside else self._takes_steps)(larger, what)
            except ComputesOtherwiseError:
                raise error from None  # it names the cause
            for what, given in kinds.items():
                self.compared += prove_replay(self.model, self.traced, given, what)
                self.done.append(what)

    def _as_recorded(self, x: Tensor) -> Tensor:
        """Return ``x`` with as many steps as were traced."""
        steps = None if self.inside else self.traced.recorded
        return sized(x, self.axis, samples=x.shape[self.axis], steps=steps)

    def _others(self, x: Tensor, samples: int) -> Tensor:
        """Return samples otherwise than ``x``, from silent to far beyond its range; of integers, not beyond that."""
        kinds = [permuted(sized(x, self.axis, samples=2), 6)]
        if not casts_of_input(self.traced.steps):
            kinds.append(extremes(x, self.axis))
        return sized(torch.cat([*kinds, of_each_kind(x, self.axis)], self.axis), self.axis, samples=samples)

    def _many_of_both(self) -> bool:
        """Compare many steps of many samples; return whether the module takes them and time allows."""
        affords = self._values * self.samples * self.steps <= _AFFORDED
        affords = affords and self._operations * self.steps <= _AFFORDED_CALLS
        if affords:
            with suppress(CaptureError):  # without gradients it says why
                self.with_gradients = self._compares_steps(self.samples, self.steps, gradients=True)
        return self.with_gradients or (affords and self._compares_steps(self.samples, self.steps))

    def _many_samples(self) -> None:
        """Compare as many samples as time allows and the module takes, the farthest from x in any case."""
        samples = max(_FEWEST_OTHERS, min(self.samples, _AFFORDED // (self._values * self.traced.length)))
        own = self.x.shape[self.axis]
        self._most(own, samples, lambda n: self._succeeds(self._others(self.x, n), counted(n, "sample")))

    def _many_steps(self) -> None:
        """Compare as many steps as time allows and the module takes."""
        steps = min(self.steps, _AFFORDED // (2 * self._values), _AFFORDED_CALLS // self._operations)
        if steps and not self._compares_steps(max(2, min(_MANY_SAMPLES, _AFFORDED // (self._values * steps))), steps):
            own = min(_FEWEST_OTHERS, self.x.shape[self.axis])
            self._most(self.traced.length, steps, lambda n: self._compares_steps(own, n))

    def _most(self, taken: int, most: int, compares: Callable[[int], bool]) -> None:
        """Compare at the size ``most``, or else at the greatest that the module takes, beyond the size ``taken``."""
        refused = taken if compares(most) else most
        while refused - taken > 1 and not self.fixed_steps:
            middle = (taken + refused) // 2
            if compares(middle):
                taken = middle
            else:
                refused = middle

    def _compares_steps(self, samples: int, steps: int, *, gradients: bool = False) -> bool:
        """Compare outputs on so many steps; return whether the module takes and makes them."""
        if self.inside:
            return False
        given = self._others(sized(self.x, self.axis, samples=2, steps=steps), samples)
        what = f"{counted(steps, 'step')} of {counted(samples, 'sample')}"
        return self._takes_steps(given, what, gradients=gradients)

    def _takes_steps(self, given: Tensor, what: str, *, gradients: bool = False) -> bool:
        """Compare as `_succeeds`, unless the module makes a fixed number of steps."""
        own = any("Traced" in type(part).__name__ for part in nn.Module.modules(self.model) if _is_scripted(part))
        if self.fixed_steps or own:
            return False
        try:
            return self._succeeds(given, what, gradients=gradients)
        except CaptureError:
            steps, length = given.shape[1 - self.axis], self.traced.length
            if steps <= length or not ignores_later_steps(self.model, given, self.traced.call, length):
                raise
            self.fixed_steps = True
            return False

    def _few_of_each(self) -> None:
        """Compare one sample, and one step of as many as time allows, within the range of x and beyond it."""
        self._succeeds(permuted(sized(self.x, self.axis, samples=1), 6), "1 sample")
        if not self.inside:
            samples = max(_FEWEST_OTHERS, min(_MANY_SAMPLES, _AFFORDED // self._values))
            self._succeeds(sized(self._others(self.x, samples), self.axis, samples=samples, steps=1), "1 step")

    def _succeeds(self, given: Tensor, what: str, *, gradients: bool = False) -> bool:
        """Compare outputs on ``given``; return whether the module takes it. gradients: whether torch records them."""
        try:
            self.compared += prove_outputs(self.model, self.traced, given, what, gradients=gradients)
        except FAILURES as error:
            if _differs(error):
                raise
            return False
        self.done.append(what)
        return True


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _differs(error: Exception) -> bool:
    return isinstance(error, ComputesOtherwiseError) or getattr(error, "layer", None) is not None
