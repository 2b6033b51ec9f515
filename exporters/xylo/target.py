"""Xylo as a Format, and our model of the chip as a Runner.

The script beside a specification, which loads it on a board, was not run on a board.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy._util.files import write_json, write_text
from stl_deploy._util.units import counted
from stl_deploy.errors import InputError
from stl_deploy.exporters.integer_runner import calibration
from stl_deploy.exporters.targets import Format, Options
from stl_deploy.exporters.xylo import layout as placed
from stl_deploy.exporters.xylo.choose import Chosen, choose, fitting
from stl_deploy.exporters.xylo.devices import DEVICES, Device, excesses, find_device
from stl_deploy.exporters.xylo.layout import Layout
from stl_deploy.exporters.xylo.quantise import MARGIN, decay_findings
from stl_deploy.exporters.xylo.runner import Xylo, XyloOptions
from stl_deploy.exporters.xylo.simulate import load, spike_counts
from stl_deploy.exporters.xylo.specification import INPUT_CAP, NAME, write_specification
from stl_deploy.exporters.xylo.structure import Structure, outline, refusals
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Neuron, Program
from stl_deploy.graph.show import Row

FILE = "load_on_board.py"
LEAST_AGREEMENT = 0.95
"""Share of a population's spike counts on the calibration input, below which export warns."""


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
        return self.check_for(program, XyloOptions())

    def check_for(self, program: Program, options: XyloOptions) -> Iterable[Finding]:
        """Check as `check`, for one chip, and whether x is spike counts."""
        findings = list(_check(program, options))
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
        for error in refusals(program):
            raise error
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
        write_json(path / placed.NAME, layout.as_dict())
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
    for fit in chosen.fits:
        if fit.differing is not None and fit.differing > (1 - LEAST_AGREEMENT) * fit.compared:
            say.warn(
                f"{fit.node}: {1 - fit.differing / fit.compared:.1%} of its spike counts on the calibration input "
                f"equal the network's in real numbers (expected: {LEAST_AGREEMENT:.0%} or more)"
            )


def _check(program: Program, options: XyloOptions) -> Iterator[Finding]:
    """Return everything that keeps a network off a Xylo, and its approximations on the chip."""
    refused = refusals(program)
    yield from (from_error(error) for error in refused)
    yield from _input(program)
    for node in program.of(Neuron):
        yield from decay_findings(node, options.round_decays)
    net = outline(program)
    if net is None:
        return
    chip = fitting(net) if options.device is None else find_device(options.device)
    yield from excesses(net, chip)
    if not refused:
        yield _placement(net, chip.title)
        yield from _rounded(net)


def _input(program: Program) -> Iterator[Finding]:
    """Return the finding that the chip takes spike counts alone."""
    declared = program.metadata.get("input", {})
    coding = declared.get("coding") if isinstance(declared, dict) else None
    remedy = f"encode it as spike counts 0 to {INPUT_CAP}: values that rise and that fall on a channel each"
    for node in program.inputs:
        if coding == "analog":
            yield Finding("analog-input", "error", node.name, "real numbers enter; Xylo takes spike counts", remedy)
        elif coding is None:
            reason = f"no input coding is declared; export takes spike counts 0 to {INPUT_CAP} and refuses others"
            yield Finding("input-unstated", "info", node.name, reason, remedy)


def _placement(net: Structure, title: str) -> Finding:
    late = ", ".join(f"'{population.name}' {population.depth}" for population in net.populations)
    hidden, outputs = (sum(population.size for population in part) for part in (net.hidden, net.outputs))
    others = [chip.title for chip in DEVICES.values() if not any(f.severity == "error" for f in excesses(net, chip))]
    holders = ", ".join(others) or "no Xylo"
    return Finding(
        "placement",
        "info",
        None,
        f"{hidden} hidden and {outputs} output neurons, checked for {title}; {holders} can hold them. Steps late on "
        f"the chip, which simulate takes out: {late}",
    )


def _rounded(net: Structure) -> Iterator[Finding]:
    for population in net.populations:
        if population.depth > 0 and population.neuron.offset is not None and population.neuron.offset.any():
            yield Finding(
                "early-bias",
                "warning",
                population.name,
                f"its bias acts {population.depth} steps before its input arrives on the chip",
                "train without v_leak behind the first layer, or compare the agreement that export reports",
            )
        held = "thresholds and states to 16" if population.neuron.spiking else "states to 16"
        yield Finding(
            "quantisation",
            "warning",
            population.name,
            f"weights are rounded to 8 bits and {held}; decays are rounded in each step",
            "export reports how many spikes differ on its input, and how many states leave 16 bits",
        )


def script(device: Device, layout: Layout) -> str:
    """Return Python for Rockpool 3.1.0 with samna, for the board owner's own environment."""
    mode = "Spike" if all(population.spikes for population in layout.populations if population.output) else "Vmem"
    return f'''"""Load specification.npz on {device.title} and run an input. UNTESTED: it was never run on a board.

It needs Rockpool 3.1.0 with samna (pip install "rockpool[xylo]", AGPL-3; samna downloads its binaries from SynSense),
and a {device.title} development kit. Written by stl-deploy; manifest and neurons.json say from what.

    python {FILE} X.npz Y.npz        x [T, B, ...], spike counts 0 to {INPUT_CAP}; y [T + {layout.skew}, B, outputs]

The outputs are {counted(layout.skew, "step")} late (neurons.json: skew). Each sample is given a network of its own, so
that it starts from rest: Rockpool's reset_state does nothing on some boards.
"""

import sys
from pathlib import Path

import numpy as np
from rockpool.devices.xylo.{device.package} import XyloSamna, config_from_specification, {device.finder}

HERE = Path(__file__).parent
DT = 1e-3
ROWS = ("dash_mem", "dash_mem_out", "dash_syn", "dash_syn_out", "threshold", "threshold_out", "bias_hidden", "bias_out")
SHIFTS = ("weight_shift_in", "weight_shift_rec", "weight_shift_out")


def configuration():
    """The board's configuration, validated by samna."""
    with np.load(HERE / "specification.npz", allow_pickle=False) as arrays:
        spec = dict(arrays)
    weights = {{name: spec[name] for name in ("weights_in", "weights_rec", "weights_out")}}
    rows = {{name: spec[name] for name in ROWS}}
    shifts = {{name: int(spec[name]) for name in SHIFTS}}
    targets = spec["aliases"].tolist()
    aliases = [[target] if target >= 0 else [] for target in targets] if max(targets) >= 0 else None
    config, valid, message = config_from_specification(**weights, **rows, **shifts, aliases=aliases)
    if not valid:
        raise SystemExit(f"samna refuses the configuration: {{message}}")
    return config


def main(source, target):
    """Run x on the first board that is connected; write y."""
    boards = {device.finder}()
    if not boards:
        raise SystemExit("no {device.title} development kit found; connect one")
    x = np.load(source, allow_pickle=False)["x"]
    if not np.isin(x, range({INPUT_CAP + 1})).all():
        raise SystemExit("expected spike counts 0 to {INPUT_CAP} in x; found other values")
    x = x.reshape(*x.shape[:2], -1)
    late = np.zeros(({layout.skew}, *x.shape[1:]), x.dtype)
    samples = []
    for sample in np.moveaxis(np.concatenate([x, late]), 1, 0):
        network = XyloSamna(boards[0], configuration(), dt=DT, output_mode="{mode}")
        y, _, _ = network.evolve(sample.astype(int))
        samples.append(y)
    np.savez(target, y=np.stack(samples, axis=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
'''


TARGETS = (XyloFormat(), Xylo)
