"""Name the commands that show the advised change and train others."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from stl_deploy.energy.measure import EnergyReport


def with_commands(report: EnergyReport, source: Path, input_file: Path | None, *, is_run: bool) -> EnergyReport:
    """Return the report with the commands that show the advised change and train others; unchanged without advice."""
    advice = report.advice
    if advice is None:
        return report
    named = shlex.quote(str(source))
    given = "" if input_file is None else f" -i {shlex.quote(str(input_file))}"
    what = "--over-steps" if advice.point is None or advice.point.margin is None else "--early-exit"
    training = f"stl-deploy optimise {named} --for energy" if is_run else ""
    command = f"stl-deploy energy {named}{given} {what}"
    return replace(report, advice=replace(advice, command=command, training=training))
