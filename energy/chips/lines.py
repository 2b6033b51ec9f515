"""One line per chip: floor power x time, stepping, events, as a bracket with its evidence."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any, get_args

from stl_deploy._util.units import counted, range_with_unit, with_unit
from stl_deploy.energy.chips import fpga
from stl_deploy.energy.chips.baselines import Device, microcontrollers
from stl_deploy.energy.chips.model import ChipModel, chip_model, chip_models
from stl_deploy.energy.chips.time import StepTimes, active_cores, check_step_times, chips_needed, layer_work, step_time
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.counts.traffic import Traffic
from stl_deploy.energy.prices.chip import Checked, OnChip
from stl_deploy.energy.prices.events import Form, event_bill, placed
from stl_deploy.energy.prices.price_list import Range, hull, sums
from stl_deploy.errors import InputError
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import Neuron, Program

PREDICTED = "predicted: neurocores only, input and output excluded"
GIVEN = "given"
NO_BOARD = "No microcontroller is priced without a step time"
FEWEST_UPDATES = 3940
"""Neuron updates a step of the smallest networks whose instructions in C were counted (chips/c_code.toml)."""


@dataclass(frozen=True, kw_only=True)
class ChipLine:
    """One inference on one chip; numbers are [low, high].

    Attributes:
        floor: Floor power x time; None without a published floor.
        cores: Power of working cores x time; None if unpublished.
        active_cores: Their number, from the fewest to those of the shortest step.
        latency: None if no time is known.
        chips: Number of chips that the network needs.
        sigma: Deviation of the total from published deviations of its prices; None without any.
        evidence: Of its power.
        events_evidence: Of its events' prices, or of its instructions.
        ann: The dense ANN twin on the same device, from published inferences there; None without any.
        regime: Of the priced floor.
        floors_W: Power of every published floor.
    """

    chip: str
    title: str
    total: Range
    floor: Range | None = None
    stepping: Range | None = None
    cores: Range | None = None
    active_cores: tuple[int, int] | None = None
    events: Range
    latency: Range | None
    step: Range | None
    step_source: str | None
    chips: int = 1
    sigma: float | None = None
    evidence: str
    events_evidence: tuple[str, ...]
    source: str
    note: str
    ann: Range | None = None
    regime: str | None = None
    floors_W: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """One entry of the energy JSON's ``chips``."""
        return {
            "chip": self.chip,
            "title": self.title,
            "label": "modelled",
            "total_J": list(self.total),
            "floor_J": _ends(self.floor),
            "regime": self.regime,
            "floors_W": dict(self.floors_W),
            "stepping_J": _ends(self.stepping),
            "cores_J": _ends(self.cores),
            "active_cores": None if self.active_cores is None else list(self.active_cores),
            "events_J": list(self.events),
            "sigma_J": self.sigma,
            "ann_J": _ends(self.ann),
            "snn_over_ann": _over(self.total, self.ann),
            "latency_s": _ends(self.latency),
            "edp_Js": None if self.latency is None else [t * s for t, s in zip(self.total, self.latency, strict=True)],
            "inferences_per_J": [1 / self.total[1], 1 / self.total[0]] if self.total[0] else None,
            "step_time_s": _ends(self.step),
            "step_time_source": self.step_source,
            "chips": self.chips,
            "evidence": self.evidence,
            "events_evidence": list(self.events_evidence),
            "source": self.source,
            "note": self.note,
        }


def chip_powers() -> list[dict[str, Any]]:
    """Return the power that each chip's line is priced with, in watts [low, high] (JSON-ready).

    Of a chip: the floor's bracket and what stepping adds; of a microcontroller and of UP5K: everything.
    """
    powers = []
    for chip in chip_models():
        if (floor := chip.floor()) is not None:
            watts = sums(power.ends for power in (floor, chip.stepping) if power is not None)
            powers.append(_power(chip.name, chip.title, watts, chip.evidence, chip.source))
    for board in microcontrollers():
        powers.append(_power(board.key, board.name, board.watts, "measured", board.source))
    return [*powers, _power(fpga.KEY, fpga.TITLE, fpga.WATTS, fpga.EVIDENCE, fpga.READ_IN)]


def _power(name: str, title: str, watts: Range, evidence: str, source: str) -> dict[str, Any]:
    about = {"name": name, "title": title, "scope": "power"}
    return about | {"watts": list(watts), "evidence": evidence, "source": source}


def title_of(chip: str) -> str:
    """Return the name in words of a chip whose check may refuse a network."""
    return fpga.TITLE if chip == fpga.KEY else chip_model(chip).title


def refused_lists(checked: Checked) -> dict[str, str]:
    """Return the price lists of chips that cannot hold the network, each with the reason."""
    chips = [chip for chip in chip_models() if chip.name in checked.refused]
    return {prices.name: checked.refused[chip.name] for chip in chips for prices in chip.events}


def _over(snn: Range, ann: Range | None) -> list[float] | None:
    """Return the minimum and maximum ratio to the ANN; None without an ANN, or if it costs nothing."""
    return None if ann is None or not ann[0] else [snn[0] / ann[1], snn[1] / ann[0]]


def _ends(values: Range | None) -> list[float] | None:
    return None if values is None else list(values)


def chip_lines(
    program: Program,
    counts: Counts,
    on_chip: OnChip,
    traffic: Sequence[Traffic],
    step_times: StepTimes | None = None,
    checked: Checked | None = None,
) -> tuple[ChipLine, ...]:
    """Price one inference on every chip, then on the C target's microcontrollers, and on UP5K.

    `uncounted` networks get a microcontroller's line only if step_times contains it.

    Args:
        program: The network.
        counts: Its counts.
        on_chip: Its placements on Loihi 1, if any.
        traffic: Messages over each placement.
        step_times: Measured seconds of a step by chip, instead of predicted ones.
        checked: Chips that cannot hold the network and get no line, and clocks on UP5K; without clocks, UP5K has a line
            only if step_times contains it.

    Raises:
        InputError: For an unknown chip, a time that is not positive, or a microcontroller's step that would need more
            instructions per second than its clock allows.
    """
    check_step_times(step_times)
    checked = checked or Checked()
    step_times = {chip: step for chip, step in (step_times or {}).items() if chip not in checked.refused}
    has_cells = any(program.of(Cell))
    lines = []
    for chip in chip_models():
        step = step_times.get(chip.name)
        # lists price the events of a neuron's update, not a Cell's operations
        if chip.name not in checked.refused and ((chip.events and not has_cells) or step is not None):
            lines.append(_line(program, counts, chip, on_chip, traffic, step))
    fits = not uncounted(program, counts)
    for board in microcontrollers():
        if fits or board.key in step_times:
            lines.append(_board(counts, board, step_times.get(board.key)))
    clocks = () if fpga.KEY in checked.refused else checked.clocks
    if clocks or fpga.KEY in step_times:
        lines.append(_fpga(counts.T, clocks, step_times.get(fpga.KEY)))
    return tuple(lines)


def uncounted(program: Program, counts: Counts) -> str:
    """Say why the C target's instructions cannot be predicted for a network, or return "".

    Adapting thresholds and late resets double the instructions of an update, synaptic currents and several spikes a
    step take more. In small networks the fixed instructions of a step dominate: five dense networks of 66 neurons took
    1.7 to 2.0 times the fitted ones (simulated, Cortex-M4).
    """
    names = [node.name for node in program.of(Cell)]
    for neuron in program.of(Neuron):
        fires_several = neuron.spiking and neuron.multi_spike and neuron.cap != 1
        has_current = neuron.synapse is not None
        if has_current or neuron.adaptation is not None or neuron.delayed_reset or fires_several:
            names.append(neuron.name)
    if names:
        return (
            "neurons without synaptic current, adapting threshold or late reset that fire at most once a step, unlike "
            f"{', '.join(names)}"
        )
    updates = counts.totals.neuron_updates / (counts.batch * counts.T)
    if updates < FEWEST_UPDATES:
        return (
            f"networks of at least {FEWEST_UPDATES:,} neuron updates a step; this one has {updates:,.0f}, and small "
            "networks take more instructions for each"
        )
    return ""


def _line(
    program: Program,
    counts: Counts,
    chip: ChipModel,
    on_chip: OnChip,
    traffic: Sequence[Traffic],
    step_seconds: float | None,
) -> ChipLine:
    events, sigma = _events(program, counts, chip, on_chip, traffic)
    simple = on_chip.placements[0] if on_chip.placements and chip.name == "loihi1" else None
    named = [] if chip.latencies is None else [name for name in counts.order if name in counts.neurons]
    works = [layer_work(program, counts, name, chip, simple) for name in named]
    chips = chips_needed(sum(work.cores for work in works), chip)
    step, source = None, None
    if chip.real_time_step is not None:
        step, source = chip.real_time_step.ends, "real time, by definition"
    elif step_seconds is not None:
        step, source = (step_seconds, step_seconds), GIVEN
    elif chip.latencies is not None:
        step, source = step_time(works, chip), PREDICTED
    latency = None if step is None else (step[0] * counts.T, step[1] * counts.T)
    floor, stepping = (None, None) if latency is None else chip.standing(latency, chips)
    active = active_cores(works, chip) if chip.core is not None and works else None
    cores = None if active is None or step is None else _cores(chip, active, step, step_time(works, chip), counts.T)
    parts = [part for part in (events, floor, stepping, cores) if part is not None]
    note = chip.caveat
    if chip.latencies is not None and not on_chip.placements:
        note = f"{note} Messages are bounded, not counted: {on_chip.reason}."
    return ChipLine(
        chip=chip.name,
        title=chip.title,
        total=sums(parts),
        floor=floor,
        stepping=stepping,
        cores=cores,
        active_cores=active,
        events=events,
        latency=latency,
        step=step,
        step_source=source,
        chips=chips,
        sigma=_sigma(chip, latency, chips, sigma),
        evidence=chip.evidence,
        events_evidence=tuple(dict.fromkeys(prices.evidence for prices in chip.events)),
        source=chip.source,
        note=note,
        regime=None if latency is None else chip.regime,
        floors_W={name: price.high * chips for name, price in chip.floors.items()},
    )


def _cores(chip: ChipModel, active: tuple[int, int], step: Range, predicted: Range, steps: int) -> Range | None:
    """Return joules of the working cores: the fewest for the longest predicted step, or the most for the shortest.

    Cores work no longer than the step lasts; the rest of a given step is taken for waiting.
    """
    low, high = (steps * min(limit, seconds) for limit, seconds in zip(step, predicted, strict=True))
    # few cores work long and many work briefly, so either end may be the dearer
    fewest, most = chip.working((high, high), active[0]), chip.working((low, low), active[1])
    return None if fewest is None or most is None else hull([fewest, most])


def _events(
    program: Program, counts: Counts, chip: ChipModel, on_chip: OnChip, traffic: Sequence[Traffic]
) -> tuple[Range, float | None]:
    """Return the bracket over the chip's lists, the placements and, for pruned weights, the storage forms.

    Also the greatest deviation of a total.
    """
    totals, sigmas = [], []
    forms = get_args(Form) if counts.has_zero_weights else ("dense",)
    for prices in chip.events:
        where: list[Traffic | None] = list(traffic) if placed(prices) and traffic else [None]
        for messages, form in product(where, forms):
            bill = event_bill(program, counts, prices, messages, on_chip.reason, form)
            totals.append(bill.total)
            if bill.sigma is not None:
                sigmas.append(bill.sigma)
    return hull(totals) if totals else (0.0, 0.0), max(sigmas, default=None)


def _sigma(chip: ChipModel, latency: Range | None, chips: int, events: float | None) -> float | None:
    """Return the standard deviation; floor, stepping and events are assumed independent."""
    spreads = [] if events is None else [events]
    for power in (chip.floor(), chip.stepping):
        if power is not None and power.sigma is not None and latency is not None:
            spreads.append(power.sigma * latency[1] * chips)
    return sum(spread**2 for spread in spreads) ** 0.5 if spreads else None


def _board(counts: Counts, device: Device, step_seconds: float | None) -> ChipLine:
    """Price the integer network on a microcontroller: counted instructions at the power of published inferences."""
    core, watts = core_of(device), device.watts
    assert device.hz is not None
    low, high = core.instructions(counts)
    latency = (low * core.cycles[0] / device.hz, high * core.cycles[1] / device.hz)
    step = (latency[0] / counts.T, latency[1] / counts.T)
    source = (
        f"predicted: {low:,.0f} to {high:,.0f} instructions an inference, as an emulated {core.name} counts them "
        f"(simulated), {core.cycles[0]:g} to {core.cycles[1]:g} cycles each (assumed) at {device.hz / 1e6:g} MHz"
    )
    if step_seconds is not None:
        if step_seconds < step[0]:
            raise InputError(
                f"step time of {device.key}: expected at least {with_unit(step[0], 's')}, the least that the network's "
                f"instructions take at {device.hz / 1e6:g} MHz; found {with_unit(step_seconds, 's')}"
            )
        step, source, latency = (step_seconds, step_seconds), GIVEN, (step_seconds * counts.T, step_seconds * counts.T)
    total = (watts[0] * latency[0], watts[1] * latency[1])
    per_cycle = f"{1e12 * watts[0] / device.hz:.0f} to {1e12 * watts[1] / device.hz:.0f} pJ a cycle"
    operations = (counts.totals.synops + counts.totals.neuron_updates) / counts.batch
    macs = range_with_unit((operations * device.per_mac[0], operations * device.per_mac[1]), "J")
    return ChipLine(
        chip=device.key,
        title=f"{device.name}, C target",
        total=total,
        events=total,
        latency=latency,
        step=step,
        step_source=source,
        # A step time that the user sets was checked by nobody, and the power is of other runs.
        evidence="measured" if step_seconds is None else "unverified",
        events_evidence=("simulated",),
        source=device.source,
        ann=device.predict(counts.totals.ann_macs_exact / counts.batch)[0],
        note=f"Power of published int8 inferences, {per_cycle}, everything included; not measured on our C code. If a "
        f"synop or an update cost what a MAC of those networks costs: {macs}.",
    )


def _fpga(steps: int, clocks: Sequence[int], step_seconds: float | None) -> ChipLine:
    """Price the Verilog engine on UP5K: the mean of the samples' clocks at 24 MHz, and between two published powers."""
    if step_seconds is not None:
        seconds, source = step_seconds * steps, GIVEN
    else:
        mean = sum(clocks) / len(clocks)
        seconds = mean / fpga.CLOCK_HZ
        source = (
            f"predicted: {mean:,.0f} clocks an inference at 24 MHz, computed from the integer model's spikes of "
            f"{counted(len(clocks), 'sample')} ({min(clocks):,} to {max(clocks):,})"
        )
    total = (fpga.WATTS[0] * seconds, fpga.WATTS[1] * seconds)
    return ChipLine(
        chip=fpga.KEY,
        title=fpga.TITLE,
        total=total,
        events=total,
        latency=(seconds, seconds),
        step=(seconds / steps, seconds / steps),
        step_source=source,
        evidence=fpga.EVIDENCE,
        events_evidence=("simulated",),
        source=fpga.READ_IN,
        note=f"Power {fpga.POWER}; no board ran it. The clocks are those of 'check'.",
    )


@dataclass(frozen=True)
class Core:
    """A processor core. runs: cores whose instructions are taken to be its own.

    per_synop, per_update: instructions; strays: counted over fitted; cycles: of an instruction (assumed).
    """

    name: str
    runs: Sequence[str]
    per_synop: float
    per_update: float
    strays: Range
    cycles: Range

    def instructions(self, counts: Counts) -> Range:
        """Return the instructions of one inference."""
        totals = counts.totals
        fitted = (self.per_synop * totals.synops + self.per_update * totals.neuron_updates) / counts.batch
        return fitted * self.strays[0], fitted * self.strays[1]


@cache
def cores() -> tuple[Core, ...]:
    """Return the cores with counted instructions."""
    text = (files(__package__) / "c_code.toml").read_text(encoding="utf-8")
    return tuple(Core(**entry) for entry in tomllib.loads(text)["core"])


def core_of(device: Device) -> Core:
    """Return a microcontroller's core."""
    return next(core for core in cores() if any(f"({name})" in device.name for name in core.runs))
