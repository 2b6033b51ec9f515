"""The verb doctor: what is installed, how large it is, and which paths will be taken."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any

from stl_deploy._util import install
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import cache_dir
from stl_deploy._util.sizes import folder_bytes, in_words
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.targets import registry, why_unavailable
from stl_deploy.exporters.verilog.synthesis import tool_versions
from stl_deploy.verbs.listings import lava_sentence, lava_status


def doctor(*, say: Console = QUIET) -> dict[str, Any]:
    """Versions, sizes, devices and Lava (JSON-ready); what only torch can tell is None where torch is missing."""
    facts, sentences = _of_torch() if install.is_there("torch") else _without_torch()
    found: dict[str, Any] = {
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
    say.table(["package", "version"], [[name, text or "not installed"] for name, text in found["versions"].items()])
    rows = [[name, text or "not installed"] for name, text in found["fpga_tools"].items()]
    say.table(["FPGA tool", "where"], rows)
    rows = [[name, reason or "ready"] for name, reason in found["backends"].items()]
    say.table(["backend", "ready, or why not"], rows)
    for sentence in (*sentences, _on_disk(found["bytes"]), lava_sentence(found["lava"])):
        say.say(sentence)
    return found


_OF_TORCH = ("torch_threads", "cuda", "neuron_path", "matmul", "bfloat16_gain")


def _of_torch() -> tuple[dict[str, Any], list[str]]:
    import torch

    from stl_deploy.nn.fused import path
    from stl_deploy.training.matmul_precision import advice, bfloat16_gain, measure

    threads, products, gain = torch.get_num_threads(), measure(), bfloat16_gain()
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    facts = (threads, cuda, path(), [measured.as_dict() for measured in products], gain)
    return dict(zip(_OF_TORCH, facts, strict=True)), [
        f"{os.cpu_count()} cores, torch uses {threads} threads; CUDA: {cuda or 'none'}",
        f"neurons run on: {path()}",
        advice(products),
        f"--set train.precision=bfloat16 multiplies {gain:.1f}x as fast as float32 here, weights rounded to 8 bits",
    ]


def _without_torch() -> tuple[dict[str, Any], list[str]]:
    return dict.fromkeys(_OF_TORCH), [f"{os.cpu_count()} cores", str(install.missing("torch"))]


def _sizes() -> dict[str, int | None]:
    """Bytes on disk: this Python's packages, Lava's environment, what else is cached (datasets); None: not there."""
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
