"""Xylo as a Format, and our model of the chip as a Runner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy._util.files import write_text
from stl_deploy._util.units import counted
from stl_deploy.errors import InputError
from stl_deploy.exporters.integer_runner import calibration
from stl_deploy.exporters.targets import Format, Options
from stl_deploy.exporters.xylo import layout as placed
from stl_deploy.exporters.xylo.check import check
from stl_deploy.exporters.xylo.choose import Chosen, choose
from stl_deploy.exporters.xylo.layout import write_layout
from stl_deploy.exporters.xylo.loader import FILE, script
from stl_deploy.exporters.xylo.network import load, spike_counts
from stl_deploy.exporters.xylo.quantise import MARGIN
from stl_deploy.exporters.xylo.runner import Xylo, XyloOptions
from stl_deploy.exporters.xylo.specification import NAME, write_specification
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Program
from stl_deploy.graph.show import Row


class XyloFormat(Format):
    """A folder with the arguments of the maker's ``config_from_specification``, and a script that loads them."""

    name = "xylo"
    description = "SynSense Xylo Audio 2, Audio 3 and IMU: the chip's integers, and a script that loads them"
    folder = NAME
    bare = True
    by_default = False
    options = XyloOptions

    def check(self, program: Program) -> Iterable[Finding]:
        """Return everything that keeps the network off the chip, and its rounding, on the first Xylo that holds it."""
        return list(check(program))

    def check_for(self, program: Program, options: XyloOptions) -> Iterable[Finding]:
        """Check as `check`, for one chip, and whether x is spike counts."""
        findings = list(check(program, options.device, options.round_decays))
        if options.x is not None and len(program.inputs) == 1:
            try:
                spike_counts(options.x, program.inputs[0].shape)
            except InputError as error:
                findings.append(from_error(error))
        return findings

    def write(self, program: Program, path: Path, options: XyloOptions) -> Mapping[str, Any]:
        """Choose integers by the calibration input (default: the first of x) and write the folder.

        Raises UnsupportedError for networks that the chip cannot hold, InputError for input that is no spike counts.
        """
        chosen = choose(
            program,
            calibration(program, options, options.x),
            device=options.device,
            round_decays=options.round_decays,
            source=options.origin.get("source", "a network"),
        )
        layout = chosen.network.layout
        assert layout is not None
        path.mkdir(parents=True)
        write_specification(chosen.network.spec, path / NAME)
        write_layout(layout, path / placed.NAME)
        write_text(path / FILE, script(chosen.device, layout))
        _tell(chosen, options)
        return {
            "target": self.name,
            "device": chosen.device.name,
            "skew": layout.skew,
            "weight_shifts": asdict(chosen.shifts),
            "layers": [asdict(fit) for fit in chosen.fits],
        }

    def rows(self, path: Path) -> list[Row]:
        """Return its populations: their positions and synapses."""
        network = load(path)
        spec = network.spec
        weights = int(np.count_nonzero(spec.weights_in) + np.count_nonzero(spec.weights_rec))
        if network.layout is None:
            return [
                Row("hidden", "Xylo", (spec.hidden,), (), weights, weights, ""),
                Row("output", "Xylo", (spec.outputs,), ("hidden",), spec.weights_out.size, spec.weights_out.size, ""),
            ]
        rows = []
        for group in network.layout.populations:
            at = list(group.neurons)
            into = [spec.weights_out] if group.output else [spec.weights_in[..., 0], spec.weights_rec[..., 0]]
            count = sum(int(np.count_nonzero(array[:, [n for n in at if n < array.shape[1]]])) for array in into)
            side = "output" if group.output else "hidden"
            where = f"{side} neurons {min(at)} to {max(at)}, {counted(group.skew, 'step')} late"
            rows.append(Row(group.node, "Xylo", group.shape, (), count, count, where))
        return rows

    def load(self, path: Path) -> Xylo:
        """Load a folder, or a bare specification, as a run on our model; raise InputError for damaged files."""
        return Xylo(path, XyloOptions())


def _tell(chosen: Chosen, options: Options) -> None:
    say, layout = options.say, chosen.network.layout
    assert layout is not None
    shifts = chosen.shifts
    say.say(
        f"{chosen.device.title}: outputs {counted(layout.skew, 'step')} late; weight shifts {shifts.input} (input), "
        f"{shifts.recurrent} (recurrent), {shifts.output} (output)"
    )
    unproved = [fit.node for fit in chosen.fits if not fit.proved]
    if unproved:
        say.say(
            f"16-bit states of {', '.join(unproved)} are not proved to suffice for every input: {MARGIN:g} times the "
            "largest state on the calibration input fits"
        )


TARGETS = (XyloFormat(), Xylo)
