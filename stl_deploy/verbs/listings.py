"""List targets, datasets, models, prices, the state of Lava, and the environment."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from stl_deploy._util import install
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import cache_dir
from stl_deploy._util.units import between, folder_bytes, in_words
from stl_deploy.energy.chips.lines import chip_powers
from stl_deploy.energy.models.frontier import width_name
from stl_deploy.energy.models.ratios import number, si
from stl_deploy.energy.paired import percent as fine_percent
from stl_deploy.energy.prices.load import list_prices
from stl_deploy.errors import InputError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.nir.dialect import PRESETS
from stl_deploy.exporters.targets import registry, why_unavailable
from stl_deploy.exporters.verilog.synthesis import tool_versions
from stl_deploy.pipeline.fast_path import warm as compile_all
from stl_deploy.training import pretrained


def lava_status() -> dict[str, Any]:
    """Return whether Lava's side environment can be used, and why not (JSON-ready)."""
    now = environment.status()
    return {
        "ready": now.ready,
        "location": str(now.location),
        "python": str(now.python),
        "lava-dl": now.version,
        "reason": now.reason,
    }


def lava_sentence(status: dict[str, Any]) -> str:
    """Return `lava_status` as a sentence."""
    if status["ready"]:
        return f"Lava is ready: lava-dl {status['lava-dl']} at {status['location']}"
    return f"Lava is not ready: {status['reason']}"


def targets(*, say: Console = QUIET) -> dict[str, Any]:
    """List formats, backends, checks and dialects (JSON-ready)."""
    known = registry()
    formats = [
        (kind.name, kind.suffix or f"folder with {kind.folder}", kind.description) for kind in known.formats.values()
    ]
    backends = [(runner.name, runner.agrees_with or "", runner.description) for runner in known.runners.values()]
    checks = [(asked.name, asked.description) for asked in known.checks.values()]
    say.table(["target", "file", "what it is"], [list(row) for row in formats])
    say.say()
    say.table(["backend", "must equal", "what runs"], [list(row) for row in backends])
    say.say()
    say.table(["check only", "what is asked"], [list(row) for row in checks])
    say.say()
    for name, reason in known.broken.items():
        say.warn(f"target '{name}': {reason}")
    keys = list(PRESETS["spec"].as_dict())
    rows = [[name, *(str(d.as_dict()[key]) for key in keys)] for name, d in PRESETS.items()]
    say.table(["dialect", *keys], rows)
    return {
        "targets": [{"name": name, "suffix": suffix, "about": about} for name, suffix, about in formats],
        "backends": [{"name": name, "agrees_with": model or None, "about": about} for name, model, about in backends],
        "checks": [{"name": name, "about": about} for name, about in checks],
        "broken": dict(known.broken),
        "dialects": {name: dialect.as_dict() for name, dialect in PRESETS.items()},
    }


def datasets(*, say: Console = QUIET) -> list[dict[str, Any]]:
    """List the datasets that a configuration can name (JSON-ready)."""
    from stl_deploy.data import dataset_names, describe, present, whole_size

    rows: list[dict[str, Any]] = []
    for name in dataset_names():
        try:
            summary, shape, classes = describe(name)
        except InputError as error:  # of another package
            say.warn(str(error))
            continue
        rows.append(
            {
                "name": name,
                "about": summary,
                "input_shape": None if shape is None else list(shape),
                "classes": classes,
                "samples": whole_size(name),
                "present": present(name),
            }
        )
    say.table(
        ["dataset", "input", "classes", "samples", "there", "what it is"],
        [
            [
                r["name"],
                "x".join(map(str, r["input_shape"])) if r["input_shape"] else "yours",
                str(r["classes"]) if r["classes"] else "yours",
                f"{r['samples']:,}" if r["samples"] else "-",
                "yes" if r["present"] else "no",
                r["about"],
            ]
            for r in rows
        ],
    )
    return rows


def models(*, say: Console = QUIET) -> list[dict[str, Any]]:
    """List the ready-made models with their cards' data (JSON-ready)."""
    cards = [pretrained.card(name) for name in pretrained.names()]
    heads = ["model", "T", "parameters", "weights", "test accuracy (95 %)", "ANN twin", "the SNN costs, modelled"]
    say.table(
        [*heads, *AGAINST_ANNS, "data", "licence of the data"],
        [
            [
                c.name,
                str(c.time_steps),
                f"{c.parameters:,}",
                c.weights.partition(",")[0],
                str(c.accuracy),
                str(c.twin_accuracy),
                costs(c.energy),
                *against_anns(c.energy),
                c.data.partition(":")[0],
                c.licence,
            ]
            for c in cards
        ],
    )
    say.say(
        "accuracy and energy are of the weights as they ship; the SNN costs so many times its ANN twin (in brackets: "
        "over every dataflow, price list and published model), on the test samples that 'run NAME --pretrained' takes; "
        "and the cheapest ANN of its topology that is no less accurate on the test split: proved (95 %, to within 0.5 "
        "points), or only measured ('not trained': no narrower ANN was); all of a card: --json"
    )
    for about in cards:
        if about.share_alike:
            say.say(
                f"{about.name}: the licence of its data requires derived works to be shared alike ({about.licence})"
            )
    say.say("use one:  stl-deploy run NAME --pretrained")
    return [about.as_dict() for about in cards]


def costs(energy: pretrained.Energy) -> str:
    """Return a ready-made model's energy ratio to its twin: both quoted numbers, and the range over all models."""
    low, high = map(number, energy.snn_over_ann)
    streaming, batched = energy.quoted.snn_over_ann, energy.quoted_layer_by_layer.snn_over_ann
    return f"{number(streaming)} times streaming, {number(batched)} layer by layer ({between(low, high)})"


AGAINST_ANNS = ("against the cheapest ANN proved no less accurate", "against the cheapest that measured no less")
"""Heads of the columns that `against_anns` fills."""


def against_anns(energy: pretrained.Energy) -> tuple[str, str]:
    """Return a ready-made model's energy ratios to its two cheapest ANNs, proved and measured, by both numbers."""
    if not energy.narrower_anns:
        return "not trained", "not trained"
    return _against(energy.proved_ann), _against(energy.measured_ann)


def _against(ann: pretrained.CheapestAnn | None) -> str:
    if ann is None:
        return "none"
    times = f"{number(ann.streaming)} times streaming, {number(ann.layer_by_layer)} layer by layer"
    return f"{times} ({width_name(ann.width)}, {fine_percent(ann.accuracy)})"


def prices(*, say: Console = QUIET) -> list[dict[str, Any]]:
    """List the price lists, then the powers of the chips' lines, whose scope is ``power`` (JSON-ready)."""
    lists, powers = list_prices(), chip_powers()
    say.table(
        ["price list", "scope", "evidence", "year", "source"],
        [[p.name, p.scope, p.evidence, str(p.year), p.source] for p in lists],
    )
    say.say()
    say.table(
        ["chip's line", "power", "evidence", "source"],
        [[p["name"], si((p["watts"][0], p["watts"][1]), "W"), p["evidence"], p["source"]] for p in powers],
    )
    return [*(p.as_dict() for p in lists), *powers]


def doctor(
    *,
    warm: Annotated[
        bool, Option("--warm", help="Compile the fast path now, so that later runs start at once.")
    ] = False,
    say: Console = QUIET,
) -> dict[str, Any]:
    """Report versions, sizes, devices and Lava (JSON-ready); torch's part is None if torch is missing.

    warm: instead, compile the fast path, as `stl_deploy.pipeline.fast_path.warm`.
    """
    if warm:
        return compile_all(say=say)
    facts, sentences = _of_torch() if install.is_there("torch") else _without_torch()
    environment: dict[str, Any] = {
        "versions": install.versions(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "cores": os.cpu_count(),
        **facts,
        "bytes": _sizes(),
        "lava": lava_status(),
        "fpga_tools": tool_versions(),
        "backends": {name: why_unavailable(kind) for name, kind in registry().runners.items()},
    }
    say.table(
        ["package", "version"], [[name, text or "not installed"] for name, text in environment["versions"].items()]
    )
    rows = [[name, text or "not installed"] for name, text in environment["fpga_tools"].items()]
    say.table(["FPGA tool", "where"], rows)
    rows = [[name, reason or "ready"] for name, reason in environment["backends"].items()]
    say.table(["backend", "ready, or why not"], rows)
    for sentence in (*sentences, _on_disk(environment["bytes"]), lava_sentence(environment["lava"])):
        say.say(sentence)
    return environment


_OF_TORCH = ("torch_threads", "cuda", "neuron_path", "matmul")


def _of_torch() -> tuple[dict[str, Any], list[str]]:
    import torch

    from stl_deploy.nn.fused import path
    from stl_deploy.training.matmul_precision import advice, measure

    threads, products = torch.get_num_threads(), measure()
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    facts = (threads, cuda, path(), [measured.as_dict() for measured in products])
    return dict(zip(_OF_TORCH, facts, strict=True)), [
        f"{os.cpu_count()} cores, torch uses {threads} threads; CUDA: {cuda or 'none'}",
        f"neurons run on: {path()}",
        advice(products),
    ]


def _without_torch() -> tuple[dict[str, Any], list[str]]:
    return dict.fromkeys(_OF_TORCH), [f"{os.cpu_count()} cores", str(install.missing("torch"))]


def _sizes() -> dict[str, int | None]:
    """Return bytes on disk: this Python's packages, Lava's environment, other caches (datasets); None: not there."""
    lava, cache = environment.location(), cache_dir()
    others = [folder_bytes(each) or 0 for each in cache.glob("*") if each != lava]
    return {
        "packages": folder_bytes(Path(sysconfig.get_path("purelib"))),
        "lava": folder_bytes(lava),
        "cache": sum(others) or None,
    }


def _on_disk(sizes: dict[str, int | None]) -> str:
    packages, lava, cache = ("none" if size is None else in_words(size) for size in sizes.values())
    return f"on disk: Python packages {packages}, Lava's environment {lava}, downloads and the like {cache}"
