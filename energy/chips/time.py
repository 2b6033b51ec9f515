"""Predict a step's duration on a chip that waits for its slowest core, or take a measured one.

After SANA-FE's Loihi model (Boyle et al., IEEE TCAD 44(8), 2025): each core accesses its neurons, updates those with
input, sends their spikes and adds their synaptic events, and the cores then synchronise, tile by tile. Low end: every
layer on as many cores as make the step shortest, all layers at once. High end: on the fewest cores, one layer after
the other, every core taking in every message. Input and output through a host are not in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite

import numpy as np

from stl_deploy._util.remedies import named, require_one_of
from stl_deploy._util.units import with_unit
from stl_deploy.energy.chips import fpga
from stl_deploy.energy.chips.baselines import microcontrollers
from stl_deploy.energy.chips.model import ChipModel, chip_models
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.prices.price_list import PriceList, Range
from stl_deploy.errors import InputError
from stl_deploy.graph.placement import Placement
from stl_deploy.graph.program import Conv, Pool, Program, feeders

_SYNC = {1: "step_sync_1_tiles", 2: "step_sync_2_tiles", 4: "step_sync_4_tiles", 29: "step_sync_29_tiles"}


@dataclass(frozen=True)
class Work:
    """Work of one layer in a mean step: neurons accessed, updates with input, spikes, synaptic events, messages in.

    cores: how many hold it at least; share: of its neurons on the fullest of them.
    """

    neurons: float
    touched: float
    spikes: float
    synops_dense: float
    synops_conv: float
    received: float
    cores: int
    share: float

    def seconds(self, prices: PriceList) -> float:
        """Return the seconds of one core that does all of it, without messages."""
        each = prices.terms
        total = self.neurons * each["latency_neuron_access"].low + self.touched * each["latency_neuron_update"].low
        total += self.spikes * each["latency_spike_out"].low
        total += self.synops_dense * each["latency_synop_dense"].low
        return total + self.synops_conv * each["latency_synop_conv"].low


def layer_work(program: Program, counts: Counts, name: str, chip: ChipModel, placement: Placement | None) -> Work:
    """Return the work of a neuron node in a mean step."""
    steps, counted = counts.T * counts.batch, counts.neurons[name]
    taps = {**counts.weighted, **counts.pools}
    tapped = [feeder for feeder in feeders(program, program.by_name[name]) if feeder in taps]
    conv = [feeder for feeder in tapped if isinstance(program.by_name[feeder], Conv | Pool)]
    synops = {feeder: taps[feeder].synops / steps for feeder in tapped}
    cores, share = ceil(counted.neurons / chip.neurons_per_core), 1 / ceil(counted.neurons / chip.neurons_per_core)
    if placement is not None and (held := [c.last - c.first for c in placement.cores if c.node == name]):
        cores, share = len(held), max(held) / counted.neurons
    return Work(
        neurons=counted.neurons,
        touched=counted.neuron_updates_touched / steps,
        spikes=counted.spikes / steps,
        synops_dense=sum(n for feeder, n in synops.items() if feeder not in conv),
        synops_conv=sum(n for feeder, n in synops.items() if feeder in conv),
        received=sum(taps[feeder].in_nonzero for feeder in tapped) / steps,
        cores=cores,
        share=share,
    )


def step_time(works: Sequence[Work], chip: ChipModel) -> Range:
    """Return seconds of a mean step: latency-optimal placement, and one layer at a time on the fewest cores."""
    prices = chip.latencies
    assert prices is not None
    seconds, fewest = [work.seconds(prices) for work in works], sum(work.cores for work in works)
    low, _ = fastest(seconds, works, chip)
    message = prices.terms["latency_message_in"].low
    high = sum(work.share * busy + work.received * message for work, busy in zip(works, seconds, strict=True))
    high += _sync(fewest, chip)
    least = chip.least_step.low if chip.least_step else 0.0
    return max(low, least), max(high, low, least)


def active_cores(works: Sequence[Work], chip: ChipModel) -> tuple[int, int]:
    """Return the cores of `step_time`'s placements: the fewest, and those of the shortest step."""
    assert chip.latencies is not None
    _, most = fastest([work.seconds(chip.latencies) for work in works], works, chip)
    return sum(work.cores for work in works), most


def fastest(seconds: Sequence[float], works: Sequence[Work], chip: ChipModel) -> tuple[float, int]:
    """Find the shortest step over all ways to share the chips' cores among layers, each layer spread evenly.

    Returns:
        Seconds of the step, and the cores that it takes.
    """
    cores = [work.cores for work in works]
    available = chips_needed(sum(cores), chip) * chip.cores
    best, most = _barrier(seconds, cores, chip), sum(cores)
    for _ in range(available - sum(cores)):
        # only the slowest layer shortens the step, but each core more takes longer to synchronise: hence `best`
        busiest = max(range(len(cores)), key=lambda i: seconds[i] / cores[i], default=None)
        if busiest is None or cores[busiest] >= works[busiest].neurons:
            break
        cores[busiest] += 1
        if (step := _barrier(seconds, cores, chip)) < best:
            best, most = step, sum(cores)
    return best, most


def chips_needed(cores: int, chip: ChipModel) -> int:
    """Return how many chips hold ``cores`` cores, at least one."""
    return max(1, ceil(cores / chip.cores))


def _barrier(seconds: Sequence[float], cores: Sequence[int], chip: ChipModel) -> float:
    slowest = max((busy / count for busy, count in zip(seconds, cores, strict=True)), default=0.0)
    return slowest + _sync(sum(cores), chip)


def _sync(cores: int, chip: ChipModel) -> float:
    assert chip.latencies is not None
    known = [chip.latencies.terms[term].low for term in _SYNC.values()]
    # given up to 29 tiles; beyond them the last value stands, too low if anything
    return float(np.interp(ceil(cores / chip.tile), list(_SYNC), known))


_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_NUMBER_AND_UNIT = re.compile(r"([-+.\deE]+) ?([mµμun]?s)?")

StepTimes = Mapping[str, float]
"""Chip (as ``chips[].chip`` of the energy JSON names it) to the seconds of one measured time step."""


def parse_step_times(texts: Sequence[str]) -> dict[str, float]:
    """Parse ``CHIP=TIME`` entries: seconds, or a number with its unit, as in ``loihi1=66e-6`` or ``loihi1=66us``.

    Raises:
        InputError: For an entry of another form, a chip given twice, or what `check_step_times` refuses.
    """
    times: dict[str, float] = {}
    for text in texts:
        chip, equals, time = text.partition("=")
        if not equals:
            raise InputError(
                f"{named('step_time')}: expected CHIP=SECONDS, as in loihi1=66e-6; found '{text}'; a step time is of "
                "one chip"
            )
        if chip in times:
            raise InputError(f"{named('step_time')}: expected each chip once; found '{chip}' twice")
        times[chip] = _seconds(chip, time)
    check_step_times(times)
    return times


def _seconds(chip: str, time: str) -> float:
    parts = _NUMBER_AND_UNIT.fullmatch(time.strip())
    try:
        return float(parts[1] if parts else time) * _UNITS[(parts and parts[2]) or "s"]
    except ValueError:
        raise InputError(
            f"{named('step_time')}: expected seconds after '{chip}=', or a time with its unit (66us); found '{time}'"
        ) from None


def check_step_times(step_times: StepTimes | None) -> None:
    """Raise InputError unless every entry names a chip that steps at its own pace, and is positive and finite."""
    if step_times is None:
        return
    if not isinstance(step_times, Mapping):
        raise InputError(f'step time: expected a chip and its seconds, as in {{"loihi1": 66e-6}}; found {step_times!r}')
    chips = {chip.name: chip.real_time_step is not None for chip in chip_models()}
    chips |= {device.key: False for device in microcontrollers()} | {fpga.KEY: False}
    for chip, seconds in step_times.items():
        if chips.get(chip):
            raise InputError(f"step time: {chip} steps in real time, by definition; leave it out")
        require_one_of(chip, (name for name, real_time in chips.items() if not real_time), "step time")
        if not (isfinite(seconds) and seconds > 0):
            raise InputError(
                f"step time of {chip}: expected the seconds of one measured time step, more than 0; found {seconds:g}"
            )


def step_time_notes(step_times: StepTimes | None) -> tuple[str, ...]:
    """Return the sentence that says which steps are given, if any are."""
    if not step_times:
        return ()
    times = ", ".join(f"{chip} {with_unit(seconds, 's')}" for chip, seconds in step_times.items())
    return (f"The time of a step is taken as given for {times}; the other chips' steps are predicted.",)
