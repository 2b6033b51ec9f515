"""Motion from raw samples to the class on emulated boards: python -m benchmarks.mcu.motion [RUN] [-o FILE.md]

RUN: what ``python -m examples.xylo.motion RUN`` trained. Its test recordings are taken as a converter of 16 bits would
give them, int16 in steps of 0.002; C encodes each sample (``examples/motion/axes.h``), steps the network and keeps the
class so far. Encoder, outputs and class must equal ours at every sample, on this machine and on each emulated core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.mcu.__main__ import BOARDS, HERE, call, here, missing, run_board
from stl_deploy._util.files import write_text
from stl_deploy.data.sensors import encode_axes
from stl_deploy.exporters.c.compiler import find_compiler, why_none
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.target import CFormat, read_folder
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate

ENCODER = HERE.parent.parent / "examples" / "motion"
STEP = 0.002
"""Of the converter, in the unit of the recordings."""
UNIT = 100
"""Steps of the converter that one spike stands for: 0.2, as in training."""
LEVEL = "-O2"


@dataclass(frozen=True)
class Measured:
    """One build on one core. code: bytes of instructions and constants of network and decision.

    ram: bytes of the states of encoder, network and decision. right: recordings whose class is their label.
    """

    board: str
    code: int
    ram: int
    instructions: float
    compared: int
    differing: int
    right: int


def quantised(x: NDArray[Any]) -> NDArray[np.int16]:
    """Recordings ``[N, T, axes]`` as the converter gives them."""
    return np.clip(np.rint(x / STEP), -(2**15), 2**15 - 1).astype(np.int16)


def export(run: Path, raw: NDArray[np.int16], folder: Path) -> None:
    """Write the C folder of a run, calibrated on these recordings' counts."""
    counts = encode_axes(raw, UNIT).swapaxes(0, 1)
    CFormat().write(lower(read_nir(run / "net.nir")), folder, COptions(x=counts, origin={"source": "net.nir"}))


def expected(folder: Path, raw: NDArray[np.int16]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Outputs ``[T, B, classes]`` of the integer model, and the class so far ``[T, B]``."""
    graph, _ = read_folder(folder)
    y = simulate(graph, to_integers(encode_axes(raw, UNIT).swapaxes(0, 1), graph.input.scale)).y
    y = y.reshape(*y.shape[:2], -1)
    return y, np.cumsum(y.astype(np.int64), axis=0).argmax(axis=2)


def compile_here(folder: Path, axes: int, place: Path) -> Path:
    """The program of ``motion.c`` for this machine."""
    sources = [str(ENCODER / "motion.c"), str(folder / "net.c"), str(folder / "net_decide.c")]
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", *_defined(folder, axes)]
    compiler = find_compiler()
    if compiler is None:
        raise SystemExit(why_none())
    call([compiler, *flags, *sources, "-o", "motion"], place)
    return place / "motion"


def measure(folder: Path, raw: NDArray[np.int16], labels: NDArray[Any], board: str) -> Measured:
    """Stream recordings ``[N, T, axes]`` on an emulated core."""
    of, (samples, steps, axes) = BOARDS[board], raw.shape
    y, classes = expected(folder, raw)
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as name:
        place = Path(name)
        (place / "net.in").write_bytes(np.array([samples, steps], "<i4").tobytes() + raw.astype("<i2").tobytes())
        flags = ["-std=gnu99", *of.flags, "-Wall", "-Wextra", "-Werror", LEVEL, *_defined(folder, axes)]
        compiler, objects = f"{of.tools}-gcc", ["net.o", "net_decide.o"]
        for source in objects:
            call([compiler, *flags, "-c", str(folder / source.replace(".o", ".c")), "-o", source], place)
        linked = ["-nostartfiles", "-T", str(HERE / of.script), "-Wl,--no-warn-rwx-segments", str(HERE / "board.c")]
        call([compiler, *flags, *linked, *objects, *of.link, "-o", "net.elf"], place)
        sizes = call([f"{of.tools}-size", *objects], place).splitlines()[1:]
        written, ticks = run_board(place, board)
    outputs = np.frombuffer(written, "<i4").reshape(samples, steps, -1).swapaxes(0, 1)
    _, program = read_folder(folder)
    return Measured(
        board=board,
        code=sum(int(line.split()[0]) for line in sizes),
        ram=program.plan.ram + 4 * (axes + 1) + 8 * (y.shape[2] + 1),
        instructions=ticks * of.tick / samples,
        compared=y.size + classes.size,
        differing=int((outputs[..., :-1] != y).sum() + (outputs[..., -1] != classes).sum()),
        right=int((outputs[-1, :, -1] == labels).sum()),
    )


def _defined(folder: Path, axes: int) -> list[str]:
    return [f"-DAXES={axes}", f"-DAXES_UNIT={UNIT}", "-I", str(ENCODER), "-I", str(folder)]


def table(measured: Sequence[Measured], recordings: int, steps: int) -> str:
    """Markdown."""
    lines = [
        "| core (simulated) | flash | RAM | instructions a sample | outputs and classes that differ | right |",
        "|---|---|---|---|---|---|",
    ]
    for row in measured:
        lines.append(
            f"| {row.board} | {row.code:,} | {row.ram:,} | {row.instructions / steps:,.0f} | "
            f"{row.differing:,} of {row.compared:,} | {row.right} of {recordings} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/xylo_motion"))
    parser.add_argument("-o", "--output", type=Path, help="file for the table")
    parser.add_argument("--csv", type=Path, help="only write the first test recording, int16 values, to this file")
    arguments = parser.parse_args()
    with np.load(f"{arguments.run}.npz", allow_pickle=False) as data:
        train, test, labels = quantised(data["x"]), quantised(data["x_test"]), data["y_test"]
    if arguments.csv is not None:
        write_text(arguments.csv, "".join(",".join(map(str, sample)) + "\n" for sample in test[0].tolist()))
        return 0
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as name:
        folder = Path(name) / "c"
        export(arguments.run, train, folder)
        measured = [measure(folder, test, labels, board) for board in here()]
    text = table(measured, *test.shape[:2])
    print(text)
    if arguments.output is not None:
        write_text(arguments.output, text)
    return int(any(row.differing for row in measured))


if __name__ == "__main__":
    sys.exit(main())
