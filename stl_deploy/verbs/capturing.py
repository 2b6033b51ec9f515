"""The verb capture: a torch module in the user's Python file becomes a NIR file, proved on their input."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import require_suffix
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.program.file import write_program
from stl_deploy.pipeline.capture import capture as capture_module
from stl_deploy.pipeline.spiking_graph import SpikingGraph
from stl_deploy.runs.user_module import load_module, module_input, name_in_file
from stl_deploy.tracing import Time

PROGRAM_SUFFIX = ".program"


def capture(
    module: str,
    input_file: Path,
    output: Path,
    *,
    weights: Path | None = None,
    time: Time = "first",
    pick: int | str | None = None,
    say: Console = QUIET,
) -> dict[str, Any]:
    """Capture ``FILE.py:NAME`` on the ``x`` of an npz file and write the network; returns the proof, JSON-ready.

    output: ``.nir``, or ``.program`` for what NIR cannot hold.

    Runs the user's file, and says so. weights: a state dict (``.safetensors`` or ``.pt``). time, pick: as `capture`'s
    ``time`` and ``output``. Raises InputError for files that do not fit, CaptureError as `capture` does.
    """
    if output.suffix != PROGRAM_SUFFIX:
        require_suffix(output, ".nir", f" for a captured graph ({PROGRAM_SUFFIX} for what NIR cannot hold)")
    x = module_input(input_file)
    say.say(f"running {name_in_file(module)[0]}, which is your code")
    model = load_module(module, weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # those of the proof are said below
        net = capture_module(model, x, time=time, output=pick)
    _write(net, output)
    say.say(str(replace(net.proof, left_aside=0)))
    if net.proof.left_aside:
        count = net.proof.left_aside + 1
        say.say(
            f"the module returns {count} tensors; the graph's output is the first (--pick INDEX|NAME names another)"
        )
    for warning in net.proof.warnings:
        say.warn(warning)
    say.say(f"readout: {net.readout}; written: {output}")
    return {"output": str(output), "readout": net.readout.as_dict(), "proof": net.proof.as_dict()}


def _write(net: SpikingGraph, output: Path) -> None:
    """Write a .program or a .nir file; raises UnsupportedError, with the name to use, where NIR cannot hold it."""
    if output.suffix == PROGRAM_SUFFIX:
        write_program(net.program, output)
        return
    try:
        graph = net.graph
    except UnsupportedError as error:
        other = f"write it as a Program, -o {output.with_suffix(PROGRAM_SUFFIX)}, which the other commands take"
        raise UnsupportedError(error.reason, node=error.node, slug=error.slug, remedy=other) from None
    write_nir(graph, output)
