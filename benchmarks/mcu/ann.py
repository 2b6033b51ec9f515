"""Trained ANNs in int8 on an emulated Cortex-M: python -m benchmarks.mcu.ann RUN --cmsis-nn FOLDER [-o FOLDER]

The opponents of the spiking network on the same core and compiler: the run's ANN twin and the narrower
ANNs of its frontier, quantised after training (weights by channel, activations by tensor), with ARM's CMSIS-NN kernels.
FOLDER is a checkout of https://github.com/ARM-software/CMSIS-NN (Apache-2.0), which is not part of this repository.
Networks are chains of convolution, norm, ReLU, max pooling and dense layers. The vote is folded into the last layer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.mcu.__main__ import BOARDS, HERE, call, measure, run_board
from benchmarks.mcu.int8 import INPUT_SCALE, generate, layers_of
from stl_deploy._util.files import read_input, write_text
from stl_deploy.data import load_dataset
from stl_deploy.exporters.c.options import POTENTIALS, COptions
from stl_deploy.exporters.c.target import CFormat, read_folder
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.training.checkpoint import load_network

BOARD, LEVEL = "Cortex-M4", "-O3"
SOURCES = (
    "ConvolutionFunctions/arm_convolve_s8.c",
    "ConvolutionFunctions/arm_convolve_get_buffer_sizes_s8.c",
    "PoolingFunctions/arm_max_pool_s8.c",
    "FullyConnectedFunctions/arm_fully_connected_s8.c",
    "ConvolutionFunctions/arm_nn_mat_mult_kernel_s8_s16.c",
    "ConvolutionFunctions/arm_nn_mat_mult_kernel_row_offset_s8_s16.c",
    "NNSupportFunctions/arm_nn_mat_mult_nt_t_s8.c",
    "NNSupportFunctions/arm_nn_vec_mat_mult_t_s8.c",
    "NNSupportFunctions/arm_s8_to_s16_unordered_with_offset.c",
    "NNSupportFunctions/arm_q7_to_q15_with_offset.c",
)


@dataclass(frozen=True)
class Row:
    """One network on the board."""

    network: str
    accuracy: float
    samples: int
    instructions: float
    code: int
    constants: int
    ram: int


def measure_ann(name: str, folder: Path, x: NDArray[Any], labels: NDArray[Any], cmsis: Path) -> Row:
    """Quantise a trained ANN, build it for the board, classify images ``x`` ``[B, C, H, W]`` on it."""
    network, config = load_network(folder)
    train = load_dataset(config.dataset).train
    calibration = train.images(slice(256)).double().numpy().reshape(-1, *x.shape[1:])
    population = config.network[-1].population  # type: ignore[union-attr]
    files = generate(layers_of(network, population), x.shape[1:], calibration)
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as place_name:
        place = Path(place_name)
        for file, text in files.items():
            write_text(place / file, text)
        whole = np.rint(x * INPUT_SCALE).astype("<i4")
        (place / "net.in").write_bytes(np.array([len(x), 1], "<i4").tobytes() + whole.tobytes())
        of = BOARDS[BOARD]
        flags = ["-std=gnu99", *of.flags, LEVEL, "-ffunction-sections", "-fdata-sections", "-w"]
        include = ["-I", str(place), "-I", str(cmsis / "Include")]
        sources = [str(path) for each in SOURCES if (path := cmsis / "Source" / each).is_file()]
        link = ["-nostartfiles", "-T", str(HERE / of.script), "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments"]
        call(
            [
                "arm-none-eabi-gcc",
                *flags,
                *include,
                *sources,
                "net.c",
                str(HERE / "board.c"),
                *link,
                *of.link,
                "-o",
                "net.elf",
            ],
            place,
        )
        measured, ticks = run_board(place, BOARD)
        code, constants, ram = _sizes(place)
    votes = np.frombuffer(measured, "<i4").reshape(len(x), -1)
    accuracy = float((votes.argmax(axis=1) == labels).mean())
    return Row(name, accuracy, len(x), ticks * of.tick / len(x), code, constants, ram)


def _sizes(place: Path) -> tuple[int, int, int]:
    """Bytes of code and constants by the linker's symbols, and of the network's state."""
    code = constants = ram = 0
    for line in call(["arm-none-eabi-nm", "-S", "net.elf"], place).splitlines():
        words = line.split()
        if len(words) != 4:
            continue
        size, kind, name = int(words[1], 16), words[2], words[3]
        if kind in "Tt" and name.startswith(("arm_", "net_")):
            code += size
        elif kind in "Rr" or (kind in "Tt" and name.startswith(("weight", "bias", "multiplier", "shift"))):
            constants += size
        elif kind in "Bb" and name.startswith("state"):
            ram += size
    return code, constants, ram


def measure_snn(run: Path, samples: int, potentials: int) -> Row:
    """The run's spiking network in C on the same board. potentials: bits of each."""
    given, labels = read_input(run / "test.npz")
    assert labels is not None
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as name:
        options = COptions(x=given, labels=labels, potentials=potentials)
        CFormat().write(lower(read_nir(run / "net.nir")), Path(name) / "c", options)
        graph, program = read_folder(Path(name) / "c")
        x = to_integers(given[:, :samples], graph.input.scale)
        measured = measure(Path(name) / "c", x, BOARD, LEVEL)
        votes = program.run(x).y.sum(axis=0)
    if measured.differing:
        raise SystemExit(f"{measured.differing} spikes differ")
    accuracy = float((votes.argmax(axis=1) == labels[:samples]).mean())
    row = (measured.code, measured.constants, measured.ram)
    network = f"SNN, T = {x.shape[0]}, {potentials}-bit potentials, stl-deploy's C"
    return Row(network, accuracy, x.shape[1], measured.instructions, *row)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "# The SNN and its int8 ANNs on one core",
        "",
        f"Made by `python -m benchmarks.mcu.ann` on an emulated {BOARD} at {LEVEL}, same compiler (simulated "
        "instructions, not cycles). ANNs: quantised after training, CMSIS-NN with the DSP extension; the vote is "
        "folded into the last layer. Accuracy: of the integers, on the same test samples.",
        "",
        "| network | accuracy | instructions an inference | code | constants | RAM |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.network} | {row.accuracy:.2%} of {row.samples} | {row.instructions:,.0f} | {row.code:,} | "
            f"{row.constants:,} | {row.ram:,} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with an ANN twin")
    parser.add_argument("--cmsis-nn", type=Path, required=True, help="checkout of CMSIS-NN")
    parser.add_argument("--samples", type=int, default=359)
    parser.add_argument("-o", "--output", type=Path, help="folder for mcu-ann.json and mcu-ann.md")
    arguments = parser.parse_args()
    if BOARDS[BOARD].missing is not None:
        raise SystemExit(BOARDS[BOARD].missing)
    given, labels = read_input(arguments.run / "test.npz")
    if labels is None or not (given == given[:1]).all():
        raise SystemExit(f"{arguments.run}: expected images that are shown at every step, with labels")
    x = np.asarray(given[0, : arguments.samples], np.float64)
    rows = [measure_snn(arguments.run, arguments.samples, bits) for bits in POTENTIALS]
    for folder in sorted(
        path.parent for path in arguments.run.glob("**/model.safetensors") if path.parent != arguments.run
    ):
        name = f"ANN ({folder.relative_to(arguments.run)}), int8, CMSIS-NN"
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows.append(measure_ann(name, folder, x, labels[: len(x)], arguments.cmsis_nn))
    print(table(rows))
    if arguments.output is not None:
        write_text(arguments.output / "mcu-ann.md", table(rows))
        write_text(arguments.output / "mcu-ann.json", json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
