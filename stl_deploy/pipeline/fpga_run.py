"""The verb fpga-run: an input on a board that runs a Verilog folder's design."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import read_inputs, write_npz
from stl_deploy.exporters.integer_runner import one_input
from stl_deploy.exporters.verilog.board import run_on_board
from stl_deploy.exporters.verilog.folder import read_folder
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate


def fpga_run(
    folder: Path, port: Path, input_file: Path, output: Path | None = None, *, baud: int = 115200, say: Console = QUIET
) -> dict[str, Any]:
    """Send an input to a board step by step, and compare its outputs with the integer model's.

    output: where ``y`` goes. Raises InputError for a wrong call, ToolError for a board that does not answer.
    """
    say.warn("fpga-run is untested on hardware: the serial line was simulated, no board has run it")
    graph, design = read_folder(folder)
    x, _ = read_inputs(input_file)
    whole = to_integers(one_input(x, "fpga-run"), graph.input.scale)
    samples = whole.shape[1]
    y = run_on_board(
        design.plan, port, whole, baud=baud, on_sample=lambda done: say.say(f"{done} of {samples} samples")
    )
    differing = int(np.count_nonzero(y != simulate(graph, whole).y))
    if output is not None:
        write_npz(output, {"y": (y * graph.output.unit).astype(np.float32)})
    say.say(f"{differing:,} of {y.size:,} outputs differ from the integer model")
    return {"port": str(port), "label": "measured", "compared": y.size, "differing": differing}
