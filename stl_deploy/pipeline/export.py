"""Export in memory: write one artifact and its manifest, read it back and run it against the graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import require_suffix, write_json
from stl_deploy._util.remedies import option
from stl_deploy._util.working import stage
from stl_deploy.config.options import ExportOptions, of_target
from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import Format, find_format, format_of, registry, why_unavailable
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline.artifacts import ParityBench, show_parity, whole_artifact, write
from stl_deploy.pipeline.network_input import compared, drawn, on_declared_grid
from stl_deploy.pipeline.results import Exported
from stl_deploy.runs.manifest import manifest, require_unedited

if TYPE_CHECKING:
    from stl_deploy.pipeline.spiking_graph import SpikingGraph


def target_of(output: Path) -> str:
    """Return the target of a file's suffix; raise InputError if there is none."""
    target = format_of(output)
    if target is None:
        known = ", ".join(f"{kind.suffix} ({kind.name})" for kind in registry().formats.values() if kind.suffix)
        raise InputError(
            f"{output}: expected a name that ends in {known}; or name the target, as {option('to', 'c')} for a "
            "folder of C"
        )
    return target.name


def check_place(to: str, output: Path, options: ExportOptions) -> Format:
    """Return the target; raise InputError if it is unknown, or its artifact cannot be written at ``output``."""
    target = find_format(to)
    if target.suffix is not None:
        require_suffix(output, target.suffix, f" for {to}")
    if target.folder is not None and not options.overwrite:
        require_unedited(output)
    return target


def export(
    net: SpikingGraph,
    to: str,
    output: Path,
    x: NetworkInput | None,
    options: ExportOptions,
    *,
    labels: NDArray[Any] | None = None,
    what: str | None = None,
    origin: Mapping[str, str] | None = None,
    calibration: Callable[[], NDArray[Any]] | None = None,
    is_random: bool = False,
    say: Console = QUIET,
) -> Exported:
    """Write one artifact and ``<output>.manifest.json``.

    x: input for verification, and for calibration unless ``calibration`` loads better; None: random input on the
    graph's grid, with a message. labels: of x. what: x in words; None: as many of its samples as `compared` allows
    are taken. origin: of the network; default: its name and hash. is_random: x was drawn, which tables say.
    An artifact that fails its verification is removed.
    Raises InputError for a wrong call, UnsupportedError where the target cannot hold the network, ParityError where
    the artifact does not spike as it must (a float one as the graph does: on the exact grid it can).
    """
    target = check_place(to, output, options)
    program = net.program
    if x is None:
        x, what = drawn(program)
        is_random = True
    elif what is None:
        x, labels, what = compared(program, x, labels, "x")
    program, x = on_declared_grid(program, x, options.input_grid, say)
    origin = origin or {"source": net.name, "sha256": net.program.digest()}
    common = {
        "origin": origin,
        "calibration": calibration,
        "x": x,
        "labels": labels,
        "deadline": options.deadline,
        "is_random": is_random,
        "say": say,
    }
    say.say(f"exporting {origin['source']} to {to}")
    stage(f"making {to}")
    with whole_artifact(output, target) as path:
        facts = write(program, target, path, of_target(options), **common)
        if "load" in facts:  # names the file as it will be called
            facts["load"] = facts["load"].replace('"net.nir"', json.dumps(str(output)))
        if options.verified:
            stage("reading it back and running it")
            say.say(f"reading {path.name} back and running it on {what}")
            comparison = _verified(ParityBench(program, x), path, target, output, options, is_random, say)
            facts["verified"] = comparison if comparison is None else {"input": what, **comparison}
        contents = manifest(program, [path], source=dict(origin), **facts)
    write_json(output.with_name(output.name + ".manifest.json"), contents)
    say.say(f"written: {output} and {output.name}.manifest.json")
    if "load" in facts:
        say.say(f"load it there with:\n{facts['load']}")
    return Exported(output, contents)


def _verified(
    bench: ParityBench, path: Path, target: Format, output: Path, options: ExportOptions, is_random: bool, say: Console
) -> dict[str, Any] | None:
    """Return the comparison's results; None, with a warning, if the artifact cannot run on this machine."""
    runner = target.load(path)
    reason = why_unavailable(runner)
    if reason is not None:
        say.warn(f"{output} was written but not run: {reason}")
        return None
    bench.loaded(runner, path, artifact=str(output), deadline=options.deadline)
    show_parity(bench.report, say, is_random=is_random)
    bench.report.require()
    return bench.report.as_dict()
