"""Check a run folder against its manifest, and add files to it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from stl_deploy._util.files import read_json, sha256, write_json
from stl_deploy._util.remedies import remedy
from stl_deploy.errors import InputError
from stl_deploy.pipeline.export import SCHEMA_VERSION, file_facts
from stl_deploy.runs.source import TEST_INPUT, graph_of
from stl_deploy.training.run_files import MANIFEST, UNDER_WAY


def mark_under_way(run_dir: Path) -> None:
    """Mark a folder's run as begun: until it ends, its files may be of two trainings."""
    write_json(run_dir / MANIFEST, {"schema_version": SCHEMA_VERSION, "state": UNDER_WAY})


def check_unchanged(run_dir: Path, names: Iterable[str]) -> bool:
    """Return whether a run folder's manifest lists ``names`` (itself and absent files aside) with their current hashes.

    Raises InputError if it lists one of them with another hash. A folder without a manifest, and files that it does not
    list, pass.
    """
    files, asked = _files(run_dir), list(names)
    for name in asked:
        if name in files and not (run_dir / name).is_file():
            raise InputError(f"{run_dir}: {name} is gone; {_again(run_dir)}")
        if name in files and sha256(run_dir / name) != files[name]:
            raise InputError(
                f"{run_dir}: {name} has changed since manifest.json was written, so what the folder holds does not "
                f"belong together; {_again(run_dir)}"
            )
    return all(name in files or name == MANIFEST or not (run_dir / name).is_file() for name in asked)


def check_network(run_dir: Path) -> None:
    """Check a run's graph and test input, and the weights of the graph, if present, by `check_unchanged`."""
    weights = [name for name in ("model.safetensors",) if (run_dir / name).is_file()]
    graph = graph_of(run_dir)
    check_unchanged(run_dir, ("net.nir" if graph is None else graph.name, TEST_INPUT, *weights))


def record_files(run_dir: Path, names: Iterable[str]) -> None:
    """Add files that a verb has written into a run folder to its manifest, if it has one."""
    path = run_dir / MANIFEST
    if not path.is_file() or not _files(run_dir):
        return
    contents = read_json(path)
    contents["files"] |= {name: file_facts(run_dir / name) for name in names}
    write_json(path, contents)


def _files(run_dir: Path) -> dict[str, str]:
    """Return the hash of each file in the manifest; raise InputError if the run has not ended, or it is damaged."""
    path = run_dir / MANIFEST
    if not path.exists():
        return {}
    contents = read_json(path)
    if isinstance(contents, dict) and contents.get("state") == UNDER_WAY:
        raise InputError(f"{run_dir}: a run into it is under way or was cut off; {_again(run_dir)}")
    try:
        return {name: str(facts["sha256"]) for name, facts in contents["files"].items()}
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not as 'stl-deploy' writes it; {_again(run_dir)}") from None


def _again(run_dir: Path) -> str:
    config = run_dir / "config.yaml"
    if not config.is_file():
        return "make it again"
    return "make it whole with: " + remedy(
        cli=f"stl-deploy run {shlex.quote(str(config))} -o {shlex.quote(str(run_dir))} --resume",
        python=f"verbs.run(verbs.configure({str(config)!r}), Path({str(run_dir)!r}), resume=True) of stl_deploy.verbs",
    )
