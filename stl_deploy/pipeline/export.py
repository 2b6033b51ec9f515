"""Export in memory: write one artifact and its manifest, read it back and run it against the graph."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, read_json, require_suffix, sha256, write_json
from stl_deploy._util.install import versions
from stl_deploy._util.remedies import option
from stl_deploy._util.working import stage
from stl_deploy.config.options import ExportOptions, of_target
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import metadata_dialect
from stl_deploy.exporters.targets import Format, find_format, form_of, format_of, registry, why_unavailable
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import readout_of
from stl_deploy.pipeline.artifacts import HasBudget, ParityBench, show_parity, whole_artifact, write
from stl_deploy.pipeline.graph_data import GraphData
from stl_deploy.pipeline.network_input import ProgramInput, drawn, first_steps, on_declared_grid
from stl_deploy.pipeline.results import Exported
from stl_deploy.training.run_files import MANIFEST

SCHEMA_VERSION = 1


_FILES = (".nir", ".program", ".onnx", ".net", ".c", ".h", ".v", ".npz", ".json", ".html", ".yaml")
"""Endings of files, which a folder's name does not have."""


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
    target = form_of(find_format(to), of_target(options))
    if target.suffix is not None:
        require_suffix(output, target.suffix, f" for {to}")
    # a folder may well be called snn.v2: only endings of files are taken for a slip
    if target.folder is not None and output.suffix and not output.is_dir() and output.suffix in _FILES:
        raise InputError(
            f"{output}: expected the name of a folder, as {to} is written; found that of a file; leave "
            f"'{output.suffix}' out"
        )
    if target.folder is not None and not options.overwrite:
        require_unedited(output)
    return target


def export(
    net: GraphData,
    to: str,
    output: Path,
    given: ProgramInput | None,
    options: ExportOptions,
    *,
    origin: Mapping[str, str] | None = None,
    calibration: Callable[[], NDArray[Any]] | None = None,
    say: Console = QUIET,
) -> Exported:
    """Write one artifact and ``<output>.manifest.json``; remove the artifact if its verification fails.

    Args:
        given: Input for verification, and for calibration unless ``calibration`` loads better; None: random input on
            the graph's grid, with a message.
        origin: Origin of the network; default: its name and hash.

    Raises:
        InputError: For an invalid call.
        UnsupportedError: If the target does not support the network.
        ParityError: If the artifact does not spike as required (float artifacts on the exact grid: like the graph).
        CheckFailed: If no layer spikes on the user's input, unless ``options.allow_silent``.
    """
    target = check_place(to, output, options)
    program = net.program
    given = given or drawn(program)
    program, x = on_declared_grid(program, given.x, options.input_grid, say)
    x, what = first_steps(x, given.what, options.steps)
    origin = origin or {"source": net.name, "sha256": net.program.digest()}
    common = {
        "origin": origin,
        "calibration": calibration,
        "x": x,
        "labels": given.labels,
        "deadline": options.deadline,
        "is_random": given.is_random,
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
            comparison = _verified(ParityBench(program, x), path, target, output, options, given.is_random, say)
            facts["verified"] = comparison if comparison is None else {"input": what, **comparison}
        if net.in_integers:
            facts["integers"] = "trained"
        contents = manifest(program, [path], source=dict(origin), **facts)
    before = _written_before(output) - contents["files"].keys()
    write_json(output.with_name(output.name + ".manifest.json"), contents)
    for name in before:  # of another package or prefix: nothing of the old network stays beside the new one
        (output.parent / name).unlink(missing_ok=True)
    say.say(f"written: {output} and {output.name}.manifest.json")
    if load := facts.get("load"):
        say.say(f"load it there with:\n{load}")
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
    samples, of = None, leading(bench.x)[1]
    if isinstance(runner, HasBudget) and (affordable := runner.affordable(bench.x)) < of:
        samples = affordable
        say.say(
            f"running the first {samples:,} of {of:,} samples, which fit the budget of a simulation; verify runs all"
        )
    bench.loaded(runner, path, artifact=str(output), deadline=options.deadline, samples=samples)
    show_parity(bench.report, say, is_random=is_random)
    silent = bench.silent and not is_random and not options.allow_silent
    replace(bench.report, silent=silent).require()
    return bench.report.as_dict() | ({} if samples is None else {"samples": samples})


def manifest(program: Program, files: Iterable[Path], **facts: Any) -> dict[str, Any]:
    """Return a manifest of ``files``, all made from ``program``; ``facts`` are added as they are (JSON-ready).

    Of a folder every file in it is named, as ``<folder>/<file>``.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "threads": _threads(),
        "dialect": _dialect(program),
        "input": program.metadata.get("input"),
        "grid": program.metadata.get("grid"),
        "readout": readout_of(program.metadata).as_dict(),
        **facts,
        "files": {name: file_facts(path) for given in files for name, path in _within(given)},
    }


def _dialect(program: Program) -> dict[str, Any] | None:
    """Return the dialect of the Program's NIR graph; None without such a graph, as NIR cannot hold every Program."""
    if program.origin is not None:
        dialect: Dialect = program.origin.dialect
    elif "dialect" in program.metadata:
        dialect = metadata_dialect(program.metadata)
    else:
        return None
    return dialect.as_dict() | {"dt": program.dt}


def _threads() -> int | None:
    """Return torch's number of threads, which trained weights can depend on; None if torch is not loaded."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _within(path: Path) -> Iterator[tuple[str, Path]]:
    if not path.is_dir():
        yield path.name, path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield file.relative_to(path.parent).as_posix(), file


def file_facts(path: Path) -> dict[str, Any]:
    """Return the hash and size of a file."""
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def _hashes(folder: Path) -> dict[str, str]:
    """Return the hashes of an artifact's files by the manifest beside it, which is not trusted."""
    files = read_json(folder.with_name(f"{folder.name}.{MANIFEST}"))["files"]
    return {name: str(facts["sha256"]) for name, facts in files.items()}


def _written_before(folder: Path) -> set[str]:
    """Return the files within an artifact's folder that its manifest names; none without one."""
    with suppress(InputError, KeyError, TypeError, AttributeError):
        return {name for name in _hashes(folder) if PurePosixPath(name).parts[0] == folder.name and ".." not in name}
    return set()


def require_unedited(folder: Path) -> None:
    """Raise InputError if a file of an artifact's folder differs from the manifest beside it.

    Files that the user has added are ignored.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        hashes = _hashes(folder)
    except (InputError, KeyError, TypeError, AttributeError):
        path = folder.with_name(f"{folder.name}.{MANIFEST}")
        raise InputError(
            f"{folder}: expected {path.name} beside it, which tells whether its files were edited; found none that can "
            f"be read; give {option('overwrite')} to replace them, or another folder"
        ) from None
    for name, wanted in hashes.items():
        file = folder.parent / name
        if file.is_file() and sha256(file) != wanted:
            raise InputError(
                f"{file}: was edited since stl-deploy wrote it; give {option('overwrite')} to replace it, or "
                "another folder"
            )
