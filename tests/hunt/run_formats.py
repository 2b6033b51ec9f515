"""What a run folder holds: checkpoint, model, configuration, records, results."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.hunt.damage import damage_bytes, damage_json, damage_text
from tests.hunt.mutant import Format
from tests.hunt.structures import damage_tensors

TINY = {
    "dataset": {"name": "digits", "T": 2},
    "network": [
        {"kind": "conv", "channels": 2, "padding": 1},
        {"kind": "norm"},
        {"kind": "lif"},
        {"kind": "pool"},
        {"kind": "flatten"},
        {"kind": "linear", "features": 10},
        {"kind": "lif"},
        {"kind": "vote", "population": 1},
    ],
    "train": {"epochs": 1, "batch_size": 512, "device": "cpu", "matmul": "highest"},
}


_KEPT = "STL_DEPLOY_HUNT_RUN"


@cache
def finished_run() -> Mapping[str, bytes]:
    """The files of a small finished run, by name; a process that is started by one that has them reads them."""
    if _KEPT in os.environ:
        return {path.name: path.read_bytes() for path in Path(os.environ[_KEPT]).iterdir()}
    from stl_deploy.config.schema import RunConfig
    from stl_deploy.verbs.whole_way import run

    with tempfile.TemporaryDirectory() as folder:
        run(RunConfig.model_validate(TINY), Path(folder) / "run", lava=False)
        return {path.name: path.read_bytes() for path in (Path(folder) / "run").iterdir() if path.is_file()}


@cache
def keep_run() -> tempfile.TemporaryDirectory[str]:
    """Lay the run's files where processes to come read them."""
    files, folder = finished_run(), tempfile.TemporaryDirectory()
    for name, content in files.items():
        (Path(folder.name) / name).write_bytes(content)
    os.environ[_KEPT] = folder.name
    return folder


def _of_run(name: str) -> Callable[[], list[bytes]]:
    return lambda: [finished_run()[name]]


def _beside(path: Path, *, without: str) -> Path:
    for name, content in finished_run().items():
        if name != without and not (path.parent / name).is_file():
            (path.parent / name).write_bytes(content)
    return path.parent


@cache
def _draw_once() -> None:
    """The curves of known records are not drawn again."""
    from stl_deploy.training import curves

    known: set[str] = set()
    draw = curves.write_curves

    def drawn(path: Path, records: Any, network: Any) -> None:
        thresholds = {name: theta.tolist() for name, theta in network.thresholds().items()}
        key = json.dumps([records, thresholds], default=repr)
        if key not in known:
            draw(path, records, network)
            known.add(key)

    curves.write_curves = drawn


def _try_checkpoint(path: Path) -> str:
    """Resumed, with one epoch more, as far as the first epoch."""
    _draw_once()
    from stl_deploy.config.schema import RunConfig
    from stl_deploy.nn.network import Network
    from stl_deploy.training.checkpoint import State, read_checkpoint
    from stl_deploy.training.curves import write_curves
    from stl_deploy.training.loop import make_optimiser

    config = RunConfig.model_validate(TINY)
    network = Network(config, (1, 8, 8), 10)
    state = State(network, make_optimiser(network, config), 0, [], {}, 0)
    read_checkpoint(path.parent, state, config)
    sum(record["seconds"] for record in state.records)
    assert state.records[state.best_epoch - 1]["validation_loss"] < float("inf")
    write_curves(path.parent / "curves.svg", state.records, network)
    return "read"


def _try_model(path: Path) -> str:
    from stl_deploy.training.checkpoint import load_network, model_facts

    load_network(_beside(path, without="model.safetensors"))
    model_facts(path.parent)
    return "read"


def _once(read: Callable[..., Any]) -> Callable[..., Any]:
    """What ``read`` gives at its first call."""
    given: list[Any] = []

    def first(*arguments: Any) -> Any:
        if not given:
            given.append(read(*arguments))
        return given[0]

    return first


@cache
def _draw_less() -> None:
    """A report takes as long as its drawings, and reading what no mutant changes: network and input are read once,
    known numbers are not drawn again; of others every figure is made, one in eight is rendered.
    """
    import matplotlib.figure

    from stl_deploy.report import run_report as verb
    from stl_deploy.report.page import plots, render, svg

    turn = [0]
    real = svg.inline

    def inline(figure: Any, name: str, label: str) -> str:
        return real(figure, name, label) if turn[0] % 8 == 0 else "<svg></svg>"

    def remembered(drawing: Callable[..., Any]) -> Callable[..., Any]:
        known: dict[str, Any] = {}

        def draw(*numbers: Any, **named: Any) -> Any:
            key = json.dumps([numbers, named], default=repr)
            turn[0] = zlib.crc32(key.encode())
            if key not in known:
                drawn = drawing(*numbers, **named)
                if len(known) >= 100:
                    return drawn
                known[key] = drawn
            return known[key]

        return draw

    plots.inline = inline
    for name in ("_curves", "_thresholds", "_raster", "_conventions", "region", "heat_map", "dominating",
                 "against_energy"):  # fmt: skip
        setattr(plots, name, remembered(getattr(plots, name)))
    for name in ("load_network", "model_facts", "read_input", "open_program"):
        setattr(verb, name, _once(getattr(verb, name)))
    last: list[Any] = [None, None]

    def plain(data: Any) -> Any:  # of the same report the second time, for the page
        if last[0] is not data:
            last[:] = data, render_json(data)
        return last[1]

    render_json, verb.report_json, render.report_json = render.report_json, plain, plain
    # The constrained layout draws everything twice.
    svg.Figure = lambda layout, **more: matplotlib.figure.Figure(**more)


def _show_energy(shown: bool) -> None:
    from stl_deploy.report import run_report as verb

    real = _whole_report()
    verb._energy = real["_energy"] if shown else lambda folder: None
    verb.layers_csv = real["layers_csv"] if shown else lambda energy: ""


@cache
def _whole_report() -> dict[str, Callable[..., Any]]:
    from stl_deploy.report import run_report as verb

    return {name: getattr(verb, name) for name in ("_energy", "layers_csv")}


def _try_report(path: Path) -> str:
    """The manifest forgets its hashes, so that the damage is met behind them.

    Beside damage of another file the energy, by far the longest part, is shown once in 32.
    """
    from stl_deploy.report.run_report import report

    _draw_less()
    _show_energy(path.name == "energy.json" or zlib.crc32(path.read_bytes()) % 32 == 0)
    folder = _beside(path, without=path.name)
    manifest = json.loads(finished_run()["manifest.json"])
    if path.name != "manifest.json":
        (folder / "manifest.json").write_text(json.dumps(manifest | {"files": {}}))
    report(folder)
    return "read"


def _try_config(path: Path) -> str:
    from stl_deploy.training.checkpoint import load_network

    load_network(_beside(path, without=path.name))
    return "read"


_JSON = (damage_json, damage_bytes)
FORMATS: Mapping[str, Format] = {
    "checkpoint": Format(
        ".safetensors",
        _of_run("checkpoint.safetensors"),
        _try_checkpoint,
        (damage_tensors, damage_bytes),
        file_name="checkpoint",
    ),
    "model": Format(
        ".safetensors", _of_run("model.safetensors"), _try_model, (damage_tensors, damage_bytes), file_name="model"
    ),
    "config": Format(".yaml", _of_run("config.yaml"), _try_config, (damage_text, damage_bytes), file_name="config"),
    "verify": Format(".json", _of_run("verify.json"), _try_report, _JSON, file_name="verify"),
    "energy": Format(".json", _of_run("energy.json"), _try_report, _JSON, file_name="energy"),
    "tradeoff": Format(".json", _of_run("tradeoff.json"), _try_report, _JSON, file_name="tradeoff"),
    "manifest": Format(".json", _of_run("manifest.json"), _try_report, (damage_json,), file_name="manifest"),
    "metrics": Format(".jsonl", _of_run("metrics.jsonl"), _try_report, (damage_json,), file_name="metrics"),
}
