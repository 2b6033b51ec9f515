"""Measured step times, at most one for each chip."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite

from stl_deploy._util.remedies import named
from stl_deploy._util.suggest import did_you_mean
from stl_deploy._util.units import with_unit
from stl_deploy.energy.chips import fpga
from stl_deploy.energy.chips.baselines import devices
from stl_deploy.energy.chips.model import chip_models
from stl_deploy.errors import InputError

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


def check_step_times(given: StepTimes | None) -> None:
    """Raise InputError unless every entry names a chip that steps at its own pace, and is positive and finite."""
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise InputError(f'step time: expected a chip and its seconds, as in {{"loihi1": 66e-6}}; found {given!r}')
    chips = {chip.name: chip.real_time_step is not None for chip in chip_models()}
    chips |= {device.key: False for device in devices() if device.microcontroller} | {fpga.KEY: False}
    for chip, seconds in given.items():
        if chip not in chips:
            known = ", ".join(name for name, real_time in chips.items() if not real_time)
            raise InputError(f"step time: expected a chip: {known}; found '{chip}'{did_you_mean(chip, chips)}")
        if chips[chip]:
            raise InputError(f"step time: {chip} steps in real time, by definition; leave it out")
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
