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

    compared: values so far; done: the runs, in words; fixed_steps: the module makes a fixed number of steps.
    made: what the module put out while torch recorded gradients, by run; with_gradients: whether that was equal.
    """

    def __init__(self, model: nn.Module, traced: Traced, x: Tensor) -> None:
        self.model, self.traced, self.x = model, traced, x
        self.axis = batch_axis(traced.call)
        self.inside = traced.call.time == "inside"
        self.compared, self.fixed_steps, self.with_gradients = 0, False, False
        self.done: list[str] = []
        self.made: dict[str, Tensor | None] = {}
        self.samples = max(_MANY_SAMPLES, 2 * x.shape[self.axis])
        self.steps = max(_MANY_STEPS, 4 * x.shape[1 - self.axis])
        self._operations = len(traced.steps.signals)
        self._values = sum(signal.node.elements() for signal in traced.steps.signals)
        affords = self._values * self.samples * self.steps <= _AFFORDED
        self._affords_both = affords and self._operations * self.steps <= _AFFORDED_CALLS
        self._most_samples = max(_FEWEST_OTHERS, min(self.samples, _AFFORDED // (self._values * traced.length)))
        self._most_steps = min(self.steps, _AFFORDED // (2 * self._values), _AFFORDED_CALLS // self._operations)

    def larger(self) -> tuple[str, Tensor]:
        """Return the first run of another size, in words, and its input."""
        if self.inside or not self._most_steps:
            return self._of_samples(self._most_samples)
        return self._of_steps(self._samples_of(self._most_steps), self._most_steps)

    def _samples_of(self, steps: int) -> int:
        """Return the number of samples beside many steps."""
        afforded = max(2, min(_MANY_SAMPLES, _AFFORDED // (self._values * steps)))
        return self.samples if self._affords_both else afforded

    def _of_samples(self, samples: int) -> tuple[str, Tensor]:
        return counted(samples, "sample"), self._others(self.x, samples)

    def _of_steps(self, samples: int, steps: int) -> tuple[str, Tensor]:
        given = self._others(sized(self.x, self.axis, samples=2, steps=steps), samples)
        return f"{counted(steps, 'step')} of {counted(samples, 'sample')}", given

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
            self._succeeds(counted(few, "step"), fresh)
        if not (self._many_steps() and self._affords_both):
            self._many_samples()
        self._few_of_each()
        self._succeeds("silent input", torch.zeros_like(self._as_recorded(sized(self.x, self.axis, samples=2))))
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
                (self._succeeds if self.inside else self._takes_steps)(what, larger)
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

    def _many_samples(self) -> None:
        """Compare as many samples as time allows and the module takes, the farthest from x in any case."""
        own = self.x.shape[self.axis]
        self._most(own, self._most_samples, lambda samples: self._succeeds(*self._of_samples(samples)))

    def _many_steps(self) -> bool:
        """Compare as many steps as time allows and the module takes; return whether it takes the most."""
        most = self._most_steps
        if self.inside or not most:
            return False
        if self._takes_steps(*self._of_steps(self._samples_of(most), most)):
            return True
        few = min(_FEWEST_OTHERS, self.x.shape[self.axis])
        self._most(self.traced.length, most, lambda steps: self._takes_steps(*self._of_steps(few, steps)))
        return False

    def _most(self, taken: int, most: int, compares: Callable[[int], bool]) -> None:
        """Compare at the size ``most``, or else at the greatest that the module takes, beyond the size ``taken``."""
        refused = taken if compares(most) else most
        while refused - taken > 1 and not self.fixed_steps:
            middle = (taken + refused) // 2
            if compares(middle):
                taken = middle
            else:
                refused = middle

    def _takes_steps(self, what: str, given: Tensor) -> bool:
        """Compare as `_succeeds`, unless the module makes a fixed number of steps."""
        own = any("Traced" in type(part).__name__ for part in nn.Module.modules(self.model) if _is_scripted(part))
        if self.fixed_steps or own:
            return False
        try:
            return self._succeeds(what, given)
        except CaptureError:
            steps, length = given.shape[1 - self.axis], self.traced.length
            if steps <= length or not ignores_later_steps(self.model, given, self.traced.call, length):
                raise
            self.fixed_steps = True
            return False

    def _few_of_each(self) -> None:
        """Compare one sample, and one step of as many as time allows, within the range of x and beyond it."""
        self._succeeds("1 sample", permuted(sized(self.x, self.axis, samples=1), 6))
        if not self.inside:
            samples = max(_FEWEST_OTHERS, min(_MANY_SAMPLES, _AFFORDED // self._values))
            self._succeeds("1 step", sized(self._others(self.x, samples), self.axis, samples=samples, steps=1))

    def _succeeds(self, what: str, given: Tensor) -> bool:
        """Compare outputs on ``given``; return whether the module takes it."""
        made = self.made.pop(what, None)
        if made is not None:
            with suppress(*FAILURES):  # without gradients it says why
                self.compared += prove_outputs(self.model, self.traced, given, what, own=made)
                self.with_gradients = True
                self.done.append(what)
                return True
        try:
            self.compared += prove_outputs(self.model, self.traced, given, what)
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
