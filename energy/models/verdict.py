"""Write the verdict: two to five short sentences to quote, each of at most 32 words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from stl_deploy._util.units import between
from stl_deploy.energy.chips.lines import GIVEN, ChipLine
from stl_deploy.energy.chips.model import chip_model
from stl_deploy.energy.models.break_even import BreakEven
from stl_deploy.energy.models.dataflow import Dataflow
from stl_deploy.energy.models.frontier import Frontier
from stl_deploy.energy.models.grid import LAYER_BY_LAYER, QUOTED, QUOTED_PRICE, beside, quoted
from stl_deploy.energy.models.ratios import Ratio, number, percent, si
from stl_deploy.energy.paired import MetricScore, Paired
from stl_deploy.energy.prices.chip import PLACED_ON
from stl_deploy.energy.prices.price_list import Range

CHIP = PLACED_ON
"""The chip that the verdict names: the one whose floor, events and time are all published."""
MOST_WORDS = 32
"""Of a sentence."""


Idle = Literal["no neuron", "no input", "silent", "cut off", "output silent", "output saturated"]
"""Why a network decides nothing: no spiking neuron, x is 0, no neuron fires, layers that never or always fire lie on
every way to the output, or the last layers never or always fire."""

_NO_NUMBER = "so there is no number to quote"
_ADVICE = "Give it input that it was trained for, or look at its thresholds."
_IDLE: Mapping[Idle, str] = {
    "no neuron": f"The network has no spiking neuron, {_NO_NUMBER}. It is no SNN to compare with an ANN twin.",
    "no input": f"Every value of the input is 0: no event reaches the SNN, {_NO_NUMBER}.",
    "silent": f"The SNN is silent on this input: no neuron fires, {_NO_NUMBER}.",
    "cut off": f"Silent or saturated layers keep the input from the output on this input, {_NO_NUMBER}.",
    "output silent": f"The SNN's output is silent on this input, {_NO_NUMBER}: its last layer never fires.",
    "output saturated": f"The SNN's output is saturated on this input, {_NO_NUMBER}: its last layer always fires.",
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Inputs of the verdict.

    placed: false where the network was found not to fit the chip. no_ann: why there is no ANN to compare with, in one
    sentence. summed: of so many steps the twin sees the sum, in one frame. frames: of so many it sees each. idle: why
    the network decides nothing on this input. dead: its layers that never or always fire. accuracy: of the SNN against
    its twin, or the user's metric.
    leads: the dataflow that fits the input.
    """

    cells: Sequence[Ratio]
    break_even: BreakEven
    models: Sequence[Ratio] = ()
    chips: Sequence[ChipLine] = ()
    placed: bool = True
    no_ann: str = ""
    summed: int = 0
    frames: int = 1
    idle: Idle | None = None
    dead: Mapping[str, Literal["silent", "saturated"]] = field(default_factory=dict)
    accuracy: Paired | MetricScore | None = None
    leads: Dataflow = QUOTED
    frontier: Frontier | None = None


def verdict(findings: Findings) -> list[str]:
    """Return the sentences: ratio at equal accuracy, if known; both numbers to quote; accuracy or range; one chip."""
    streaming, batched = quoted(findings.cells), quoted(findings.cells, LAYER_BY_LAYER)
    if findings.idle:
        return [_IDLE[findings.idle], *([_ADVICE] if findings.idle != "no neuron" else [])]
    if streaming is None or batched is None:
        sentences = ["The SNN has no weights, so there is no ANN twin to compare it with."]
    elif findings.no_ann:
        joules = (si(cell.energy.snn_J, "J") for cell in (streaming, batched))
        priced = (
            "The SNN takes {} an inference streaming (weights once per step) and {} layer by layer "
            "(once per inference); modelled, int8, 45 nm, memory included.".format(*joules)
        )
        sentences = [_dead(findings), findings.no_ann, priced]
    else:
        first, second = (streaming, batched) if findings.leads == QUOTED else (batched, streaming)
        at_equal = () if findings.frontier is None else findings.frontier.sentences
        accuracy = "" if findings.accuracy is None else findings.accuracy.text
        compared = accuracy or ("" if at_equal else spread(findings))
        sentences = [
            _dead(findings),
            *at_equal,
            both_numbers(first, second, findings.frontier),
            _of_frames(streaming, findings),
            compared,
        ]
    return [sentence for sentence in (*sentences, on_chip(findings)) if sentence]


def _dead(findings: Findings) -> str:
    """Return the layers that never or always fire on this input, before any number that holds for them, too."""
    if not findings.dead:
        return ""
    first, *others = findings.dead
    more = f" (and {len(others)} more)" if others else ""
    return f"Layer '{first}' is {findings.dead[first]} on this input{more}: the numbers may not hold for others."


_FLOWS = {QUOTED: ("streaming", "step"), LAYER_BY_LAYER: ("layer by layer", "inference")}


def both_numbers(first: Ratio, second: Ratio, frontier: Frontier | None = None) -> str:
    """Return the two numbers to quote, the one that fits the input first, and their assumptions."""
    # beside a frontier, which chooses its own SNN, "the SNN" needs a name
    snn = "The SNN" if frontier is None else f"The SNN as it is, {frontier.snn[0].name},"
    zeros = ", the ANN's zeros skipped" if first.ann_zeros == "skipped" else ", the ANN dense"
    shown = [(number(cell.ratio), *_FLOWS[cell.flow]) for cell in (first, second) if cell.flow is not None]
    (leads, flow, often), (follows, other_flow, other_often) = shown
    return (
        f"{snn} costs {leads} times its ANN twin {flow} (weights once per {often}) and {follows} times {other_flow} "
        f"(once per {other_often}); modelled, int8, 45 nm{zeros}."
    )


def _of_frames(streaming: Ratio, findings: Findings) -> str:
    """Return what the twin sees of a sequence, and the ratio to an ANN that runs at each step."""
    steps = max(findings.summed, findings.frames)
    each = f"the SNN {number(streaming.ratio / steps)} times that, streaming" if steps else ""
    if findings.summed > 1:
        return (
            f"The twin sees all {steps} steps summed in one frame; run at each ('train.frames: each') it costs about "
            f"{steps} times as much: {each} (accuracy not measured)."
        )
    if findings.frames > 1:
        return f"These are ratios to one pass of the twin, which runs at each of {steps} steps: {each}."
    return ""


def spread(findings: Findings) -> str:
    """Return the range over the whole page, and the spike rate of break-even in the dataflow that leads."""
    streaming = quoted(findings.cells)
    if streaming is None:
        return ""
    low, high = range_of_ratios(findings)
    return (
        f"Over every dataflow, price list and published model it costs {between(number(low), number(high))} times; "
        f"{equal_at(findings.break_even, findings.leads)}."
    )


def range_of_ratios(findings: Findings) -> Range:
    """Return the range over the models and the grid's cells that treat the twin's zeros as the quoted one."""
    streaming = quoted(findings.cells)
    assert streaming is not None
    ratios = [cell.ratio for cell in beside(findings.cells, streaming)]
    ratios += [end for model in findings.models for end in model.energy.ends or ()]
    return min(ratios), max(ratios)


def on_chip(findings: Findings) -> str:
    """Return energy and time of an inference on Loihi 1, if known."""
    if not findings.placed:
        return f"It could not be placed on {chip_model(CHIP).title}: no energy of that chip is quoted."
    line = next((line for line in findings.chips if line.chip == CHIP and line.latency is not None), None)
    if line is None or line.latency is None:
        return ""
    scope = "" if line.step_source == GIVEN else "neurocores only; "
    costs = f"{si(line.total, 'J')} and {si(line.latency, 's')}"
    how = f"{scope}modelled from measured power, the 2018 table and SANA-FE's prices"
    return f"On {line.title} an inference takes {costs} ({how})."


def equal_at(break_even: BreakEven, flow: Dataflow) -> str:
    """Return the break-even of the comparison under ``flow``, or that there are no spikes."""
    if not break_even.spike_rate:
        is_graded = break_even.spike_rate is None
        return "its Cells put out values, not spikes" if is_graded else "no neuron fires on this input"
    name, _ = _FLOWS[flow]
    model = next((m for m in break_even.models if (m.flow, m.price) == (flow, QUOTED_PRICE)), None)
    if model is None or model.scale is None or model.spike_rate is None:
        return {
            "above": f"{name}, more at every spike rate",
            "below": f"{name}, less at every spike rate",
        }.get("not defined" if model is None else model.verdict, f"{name} has no break-even spike rate")
    at = sum(model.spike_rate) / 2
    return f"{name}, equal at {percent(at)} spikes per neuron and step, here {percent(break_even.spike_rate)}"
