"""`convert`: turn a trained ReLU network into a spiking one of few levels, and say what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from stl_deploy._util.caller import warn_caller
from stl_deploy._util.keywords import right_keywords
from stl_deploy._util.units import counted
from stl_deploy._util.working import stage, working
from stl_deploy.config.options import EnergyOptions
from stl_deploy.energy.measure import EnergyReport
from stl_deploy.energy.models.frontier import ann_joules_of_counts
from stl_deploy.energy.models.grid import quoted
from stl_deploy.energy.paired import accuracy_interval
from stl_deploy.energy.prices.price_list import middle
from stl_deploy.errors import InputError, ParityError, UnsupportedError
from stl_deploy.graph.program import Conv, Linear, MaxPool, Neuron, Norm, Product, Program
from stl_deploy.graph.readout import Readout
from stl_deploy.graph.run import run
from stl_deploy.passes import lower_max_pools
from stl_deploy.passes.ramps_for_cells import ramps_for_cells
from stl_deploy.passes.spikes_for_counts import spikes_for_counts
from stl_deploy.passes.spikes_for_relus import (
    FORMS,
    Form,
    heights_in_weights,
    is_relu,
    relus,
    relus_behind_pools,
    relus_into_counts,
    spikes_for_relus,
)
from stl_deploy.pipeline.calibrate import accurate, activations, bias_shifts, least_squares, right_of
from stl_deploy.pipeline.capture import capture
from stl_deploy.pipeline.conversion import Candidate, Conversion, Joules, Method, steps_of
from stl_deploy.pipeline.conversion_data import Parts, parts_of
from stl_deploy.pipeline.distil import distil
from stl_deploy.pipeline.energy import energy
from stl_deploy.pipeline.spiking_graph import SpikingGraph
from stl_deploy.pipeline.trained_on import foreign_norm
from stl_deploy.tracing.proof.layers_and_ends import MAX_ROUNDING
from stl_deploy.tracing.recording.source_lines import Place
from stl_deploy.tracing.without_time import run_in_parts

AUTO = (1, 2, 4, 8, 16)
"""Levels that ``levels="auto"`` tries, the fewest first."""
_MOST_LEVELS = 255
_CALIBRATED_ON, _COUNTED_ON, _CAPTURED_ON = 256, 16, 4


@right_keywords({"model": "ann", "x": "data", "calibration": "data", "epochs": "learn", "T": "levels"})
def convert(
    ann: nn.Module,
    data: Any,
    *,
    levels: int | Literal["auto"] = "auto",
    within: float = 0.5,
    learn: int = 0,
    form: Form = "counts",
    progress: bool | None = None,
) -> SpikingGraph:
    """Convert a trained ReLU network into a spiking network.

    Thresholds are calibrated per channel by least squares (256 samples), then biases, then learned by distillation if
    asked; the candidate with the best accuracy on held-out samples is kept.

    Args:
        ann: A torch module; forward takes ``[B, *shape]``, its activations are ReLUs.
        data: Samples ``x [N, *shape]``; ``(x, labels)``; torch Datasets ``(train, test)`` or one; a DataLoader; the
            result of `stl_deploy.data.from_arrays`; a dataset's name, an npz file or a folder of images. 8-bit
            integers are images and become x / 255. Without labels
            nothing is judged. Without a test split, a fifth of the samples is held back as one.
        levels: Levels of a count, or steps of a rate; ``auto``: the fewest of 1, 2, 4, 8, 16 within ``within`` points.
        within: Points of accuracy that may be lost on the held-out samples.
        learn: Epochs of distillation to the ANN's outputs, for thresholds and then for weights.
        form: ``counts``: up to ``levels`` spikes at one step; ``rates``: binary spikes over as many steps.
        progress: False disables the progress line.

    Returns:
        The spiking network, whose methods take x as the ANN does, ``[B, *shape]``; ``.conversion`` has the candidates.

    Raises:
        CaptureError: If the module cannot be expressed as a graph.
        UnsupportedError: If it has no ReLU, or spikes already.
        InputError: For invalid arguments or data.
        DivergedError: If learning meets NaN or infinity.

    Examples:
        >>> net = stl_deploy.convert(ann, (x, labels))
        >>> print(net.conversion)
        >>> net.export("net.onnx")
    """
    _require_arguments(levels, within, learn, form)
    parts = parts_of(data)
    with working(f"converting {type(ann).__name__}", progress):
        return _converted(ann, parts, _Wish(levels, within, learn, form))


@dataclass(frozen=True)
class _Wish:
    levels: int | Literal["auto"]
    within: float
    learn: int
    form: Form


def _require_arguments(levels: Any, within: Any, learn: int, form: Any) -> None:
    if form not in FORMS:
        raise InputError(f"form: expected {' or '.join(map(repr, FORMS))}; found {form!r}")
    whole = isinstance(levels, int) and not isinstance(levels, bool) and 1 <= levels <= _MOST_LEVELS
    if levels != "auto" and not whole:
        raise InputError(f"levels: expected 'auto' or an integer from 1 to {_MOST_LEVELS}; found {levels!r}")
    if not isinstance(within, int | float) or not 0 <= within <= 100:
        raise InputError(f"within: expected points of accuracy from 0 to 100; found {within!r}")
    if not isinstance(learn, int) or learn < 0:
        raise InputError(f"learn: expected a number of epochs from 0; found {learn!r}")


def _converted(ann: nn.Module, parts: Parts, wish: _Wish) -> SpikingGraph:
    stage("capturing")
    few = parts.train[:_CAPTURED_ON]
    captured = capture(ann, few, time="none", progress=False)
    module: Any = captured.original
    simpler = relus_into_counts(ramps_for_cells(captured.program))
    program = relus_behind_pools(simpler)
    _require_relus(program, wish.form, module.places)
    _require_same(captured.program, simpler, few, MAX_ROUNDING)
    _require_same(simpler, program, few, 0)
    calibration = parts.train[:_CALIBRATED_ON]
    if len(calibration) < _COUNTED_ON:
        warn_caller(f"data: thresholds are calibrated on {counted(len(calibration), 'sample')}; give {_CALIBRATED_ON}")
    judged_on = 0 if parts.held_out is None else len(parts.held_out[1])
    if wish.levels == "auto" and judged_on * wish.within < 100 and judged_on and wish.within:
        needed = f"give {math.ceil(100 / wish.within):,} held-out samples (x_val, else a tenth of all) or more points"
        warn_caller(f"within: {wish.within:g} points are less than one of {judged_on} held-out samples; {needed}")
    norm = foreign_norm(ann, calibration)
    if norm is not None:
        warn_caller(f"data: mean or variance at batch norm '{norm}' is far from that in training; scale them as there")
    search = _Search(ann, program, parts, wish, activations(program, calibration), captured.readout)
    tried = list(search.run())
    chosen = search.best(tried)
    program, candidate = tried[chosen]
    candidates = tuple(each for _, each in tried)
    conversion = Conversion(wish.form, candidates, chosen, float(wish.within), (search.count, search.ann_accuracy))
    steps = steps_of(candidate.levels, wish.form)
    judged = _judged(conversion, search, program, steps, parts)
    module = module.with_steps(steps)
    return SpikingGraph(
        replace(program, metadata={**program.metadata, **judged.stated()}),
        readout=replace(captured.readout, over_time="mean"),
        original=module,
        sample=module.given(parts.train[: max(_CAPTURED_ON, _COUNTED_ON)].numpy()),
        name=captured.name,
    )


def _require_relus(program: Program, form: Form, places: Mapping[str, Place]) -> None:
    if form == "rates" and program.spiking:
        reason = "it counts spikes already, and rates are made of ReLUs"
        raise UnsupportedError(reason, node=program.spiking[0].name, slug="spikes-already", remedy="use counts")
    if not program.spiking and not relus(program):
        output = program.outputs[0].name
        raise UnsupportedError("no ReLU leads to it", node=output, slug="no-relu", remedy="train with ReLU")
    graded = [each.name for each in program.of(Neuron) if not (is_relu(each) or each.spiking or each.v_min is None)]
    if graded:
        warn_caller(f"{', '.join(graded)}: bounded otherwise than a ReLU, so real numbers stay there")
    for product in program.of(Product):
        if any(_is_real(program, operand.node) for operand in product.operands):
            remedy = "train with ReLU or ReLU6 in its place, or behind both of them"
            line = places[product.name].line if product.name in places else None
            reason = f"it multiplies weighted sums{f' ({line})' if line else ''}, which no spikes carry"
            raise UnsupportedError(reason, node=product.name, slug="no-relu", remedy=remedy)
    mixing = next((node for node in program.nodes if isinstance(node, MaxPool | Product)), None)
    if form == "rates" and mixing is not None:
        what = "a max pool" if isinstance(mixing, MaxPool) else "a product of two signals"
        warn_caller(f"'{mixing.name}' is {what}, which counts pass exactly, and rates only about; use counts")


def _is_real(program: Program, name: str) -> bool:
    """Return whether a value has a part that is the input or sums of weights, without counts or ReLUs behind them."""
    node = program.by_name[name]
    if isinstance(node, Neuron):
        return not (node.spiking or is_relu(node))
    if not node.operands or isinstance(node, Conv | Linear | Norm):
        return True
    return any(_is_real(program, operand.node) for operand in node.operands)


def _require_same(before: Program, after: Program, x: Tensor, most: float) -> None:
    """Raise ParityError if a rewrite moved outputs on x ``[B, *shape]`` by more than a share of the largest."""
    shown = x[None].numpy()
    wanted, made = run(before, shown).y, run(after, shown).y
    if float(np.abs(wanted - made).max()) > most * float(np.abs(wanted).max()):
        raise ParityError("rewriting activations changed the ANN's outputs; please report it")


class _Search:
    """Tries levels and methods, and chooses on held-out samples."""

    def __init__(
        self,
        ann: nn.Module,
        program: Program,
        parts: Parts,
        wish: _Wish,
        active: Mapping[str, Tensor],
        readout: Readout,
    ) -> None:
        self.ann, self.program, self.parts, self.wish, self.active = ann, program, parts, wish, active
        self.readout = readout
        self.count = 0 if parts.held_out is None else len(parts.held_out[1])
        self.ann_accuracy = self._of_ann(parts.held_out)

    def _of_ann(self, part: tuple[Tensor, Tensor] | None) -> float | None:
        if part is None:
            return None
        x, labels = part
        scores = run_in_parts(self.ann, x)
        if scores.dim() != 2:
            shape = ", ".join(map(str, scores.shape[1:]))
            raise InputError(f"data: labels need outputs [B, classes]; found [B, {shape}]; give x without labels")
        classes = scores.shape[-1] // self.readout.population
        judged = labels if self.parts.test is None else torch.cat([labels, self.parts.test[1]])
        if (most := int(judged.max())) >= classes:
            raise InputError(f"data: expected labels below {classes}, one for each output; found {most}")
        return right_of(scores, labels, self.readout.population) / len(labels)

    def run(self) -> Iterator[tuple[Program, Candidate]]:
        """Yield candidates, the fewest levels first, until one is within the points."""
        if not relus(self.program):
            program = heights_in_weights(self.program)
            yield program, self._candidate(program, max(map(_levels_of, program.spiking)), "as trained")
            return
        for levels in AUTO if self.wish.levels == "auto" else (self.wish.levels,):
            best = 0.0
            for method, made in self._methods(levels):
                program = lower_max_pools.PASS.run(spikes_for_counts(heights_in_weights(made))).program
                candidate = self._candidate(program, levels, method)
                best = max(best, candidate.accuracy or 0.0)
                yield program, candidate
            if self._is_within(best):
                return

    def _methods(self, levels: int) -> Iterator[tuple[Method, Program]]:
        """Yield the Program of each way to find thresholds; each of the learned ones starts from the one before."""
        program, form, x = self.program, self.wish.form, self.parts.train
        stage(f"{levels} levels, calibrated")
        thresholds = least_squares(program, self.active, levels)
        yield "calibrated", spikes_for_relus(program, thresholds, levels, form)
        stage(f"{levels} levels, with biases")
        shifts = bias_shifts(program, thresholds, x[:_CALIBRATED_ON], self.active, levels, form)
        made = spikes_for_relus(program, thresholds, levels, form, shifts)
        yield "with biases", made
        if self.wish.learn:
            wanted, steps = run_in_parts(self.ann, x), steps_of(levels, form)
            stage(f"{levels} levels, thresholds learned")
            made = distil(made, x, wanted, steps, what="thresholds", epochs=self.wish.learn)
            yield "thresholds learned", made
            stage(f"{levels} levels, weights learned")
            yield "weights learned", distil(made, x, wanted, steps, what="weights", epochs=self.wish.learn)

    def _candidate(self, program: Program, levels: int, method: Method) -> Candidate:
        steps = steps_of(levels, self.wish.form)
        accuracy, interval = None, None
        if self.parts.held_out is not None:
            right = accurate(program, *self.parts.held_out, steps, self.readout.population)
            accuracy, interval = right / self.count, accuracy_interval(right, self.count)
        few = self.parts.train[:_COUNTED_ON]
        report = energy(program, np.broadcast_to(few.numpy(), (steps, *few.shape)), EnergyOptions())
        synops = report.counts.totals.synops / len(few)
        return Candidate(levels, method, accuracy, interval, synops, self._joules(program, report))

    def _joules(self, program: Program, report: EnergyReport) -> Joules | None:
        cell = None if report.idle else quoted(report.comparisons)
        if cell is None:
            return None
        snn, same = middle(cell.energy.snn_J), None
        if self.wish.form == "counts":
            # that ANN may move its activations as events, too, and is then this network
            same = min(snn, ann_joules_of_counts(program, report.counts))
        return Joules(snn, middle(cell.energy.ann_J), same)

    def _is_within(self, accuracy: float) -> bool:
        if self.ann_accuracy is None:
            return False
        return accuracy >= self.ann_accuracy - self.wish.within / 100

    def best(self, found: list[tuple[Program, Candidate]]) -> int:
        """Return the candidate of the fewest levels within the points, of those the most accurate; else the best.

        Without labels: the most levels with biases.
        """
        if self.ann_accuracy is None:
            return len(found) - 1
        within = [k for k, (_, each) in enumerate(found) if self._is_within(each.accuracy or 0.0)]
        fewest = min((found[k][1].levels for k in within), default=None)
        eligible = [k for k in within if found[k][1].levels == fewest] or list(range(len(found)))
        return max(eligible, key=lambda k: (found[k][1].accuracy or 0.0, -k))


def _levels_of(neuron: Neuron) -> int:
    """Return the most spikes that a neuron without memory fires at a step."""
    return neuron.cap or _MOST_LEVELS if neuron.multi_spike else 1


def _judged(conversion: Conversion, search: _Search, program: Program, steps: int, parts: Parts) -> Conversion:
    """Judge the chosen network once on the test samples."""
    if parts.test is None:
        return conversion
    stage("judging on test samples")
    x, labels = parts.test
    right = accurate(program, x, labels, steps, search.readout.population)
    interval = accuracy_interval(right, len(labels))
    ann = search._of_ann(parts.test)
    return replace(conversion, samples=len(labels), ann_accuracy=ann, accuracy=right / len(labels), interval=interval)
