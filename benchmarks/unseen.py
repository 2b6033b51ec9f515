"""Files that nobody here wrote, run and compared with what their authors recorded: docs/measurements/unseen-files.md.

    python -m benchmarks.unseen [--public DIR] [--lava-dl DIR] [-o OUT]

DIR of ``--public``: the NIR files and recordings of shared data (``files/`` as their repositories hold them,
``trained/`` with inputs, outputs and dialects). DIR of ``--lava-dl``: ``tests/lava/lib/dl/netx`` of lava-dl 0.6.0's
wheel, which Lava's side environment has. Rows of a folder that is not given keep their committed results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.file import read_netx
from stl_deploy.exporters.nir.detect_writer import candidates, detect_writer
from stl_deploy.exporters.nir.dialect import PRESETS
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.run import run

DOCS = Path(__file__).parents[1] / "docs" / "measurements"
_HEAD = """# Files that nobody here wrote

Public NIR files and lava-dl's own netx files, read and run, and compared with what their authors' framework put out.
*Compared* counts outputs at all steps; a row without a comparison is a file without a recording, and says what becomes
of it. Dialects are named by hand where the file does not give its writer away; *sound* are files that need one named.

Repeat it with `python -m benchmarks.unseen --public DIR --lava-dl DIR` (`python -m benchmarks.unseen --help`).

| file | from | read as | compared | differ | note |
|---|---|---|---|---|---|
"""
_TRAINED = {
    "braille_noDelay_bias_zero_reset_delay_False": "snntorch_zero_now",
    "braille_noDelay_bias_zero_reset_delay_True": "snntorch_zero",
    "braille_noDelay_noBias_subtract_reset_delay_False": "snntorch_now",
    "braille_noDelay_noBias_subtract_reset_delay_True": "snntorch",
    "real_nmnist_cnn_sinabs_reader": "sinabs_reader",
}
"""Origin of each recording of ``trained/``, which its file cannot hold."""


@dataclass(frozen=True)
class Row:
    """One file: what it was read as, outputs compared with the recording and differing, and what there is to say."""

    name: str
    origin: str
    read_as: str
    compared: int = 0
    differ: int = 0
    note: str = ""


def public_rows(folder: Path) -> Iterator[Row]:
    """The NIR files of a folder with ``trained/`` and ``files/``."""
    for path in sorted((folder / "trained").glob("*.nir")):
        with np.load(path.with_suffix(".npz")) as kept:
            x, expected = kept["x"], kept["y"]
        preset = _TRAINED[path.stem]
        outputs = run(lower(read_nir(path), PRESETS[preset]), x).y
        yield Row(path.name, "the NIR paper, trained", preset, expected.size, int((outputs != expected).sum()))
    for path in sorted((folder / "files").rglob("*.nir")):
        yield _unrecorded(path, str(path.relative_to(folder / "files").parts[0]))


def _unrecorded(path: Path, origin: str) -> Row:
    try:
        graph = read_nir(path)
        writer = detect_writer(graph)
        lower(graph, None if writer is None else writer.dialect)
    except StlDeployError as error:
        return Row(path.name, origin, "refused", note=str(error).removeprefix(f"{path}: "))
    if writer is None:
        return Row(path.name, origin, "sound", note=f"does not say its dialect: {len(candidates(graph))} candidates")
    return Row(path.name, origin, f"{writer.preset} (by its form)", note=f"recognised by: {writer.trace}")


def lava_dl_rows(folder: Path) -> Iterator[Row]:
    """lava-dl's own networks against the recordings beside them; each layer is one step late there, samples of 16."""
    gts = folder / "gts"
    spikes = np.load(gts / "ntidigits/input.npy").T[:, None].reshape(-1, 1, 1, 1, 64)
    expected = np.load(gts / "ntidigits/output.npy").T[:, None]
    outputs = run_file(read_netx(gts / "ntidigits/ntidigits.net"), spikes).y
    yield _compared(
        "ntidigits.net", [(outputs[:-4], expected[4:])], "keyword spotter, axonal delays; recording 4 steps late"
    )
    yield _compared(
        "pilotnet_lif/network.net", _pilotnet(gts / "pilotnet_lif"), "9 layers; input neurons driven by bias"
    )
    yield _compared("tiny.net", _tinynet(folder), "3 layers; recording one step late")
    for name in ("pilotnet_sdnn/network.net", "pilotnet_sdnn/square_network.net"):
        yield _read_only(gts / name, name)
    yield _read_only(folder / "mnist.net", "mnist.net")


def _pilotnet(gts: Path) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    image = np.load(gts / "image.npy").transpose(2, 1, 0)
    net = read_netx(gts / "network.net")
    outputs = run_file(net, np.broadcast_to(image, (16, 1, *image.shape)), record=True).spikes
    names = ["input-s", *(f"conv-{i}" for i in range(5)), *(f"fc-{i}" for i in range(3))]
    keys = [key for key in outputs if key != "layer10"]  # its last layer holds potentials, and never fires
    for late, (name, key) in enumerate(zip(names, keys, strict=True)):
        recorded = np.load(gts / f"{name}.npy")
        recorded = recorded.transpose(3, 2, 1, 0) if recorded.ndim == 4 else recorded.T
        yield outputs[key], recorded[late : late + 16][:, None]


def _tinynet(folder: Path) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    bias = np.load(folder / "gts/tinynet/input_bias.npy").transpose(2, 1, 0).astype(int)
    outputs = run_file(read_netx(folder / "tiny.net"), np.broadcast_to(bias, (16, 1, *bias.shape)), record=True).spikes
    for key, name in zip(outputs, ("input", "layer1", "output"), strict=True):
        recorded = np.load(folder / f"gts/tinynet/{name}.npy")[0].transpose(3, 0, 1, 2)[:, None]
        yield outputs[key][:-1], recorded[1:]


def _compared(name: str, pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], note: str) -> Row:
    held = [(outputs.astype(np.int64), recorded.astype(np.int64)) for outputs, recorded in pairs]
    differ = sum(int((outputs != recorded).sum()) for outputs, recorded in held)
    return Row(name, "lava-dl 0.6.0", "netx", sum(recorded.size for _, recorded in held), differ, note)


def _read_only(path: Path, name: str) -> Row:
    try:
        net = read_netx(path)
    except StlDeployError as error:
        return Row(name, "lava-dl 0.6.0", "refused", note=str(error).removeprefix(f"{path}: "))
    return Row(name, "lava-dl 0.6.0", "netx", note="; ".join(["no recording beside it", *net.notes]))


def write(rows: list[dict[str, Any]], docs: Path) -> None:
    """Write unseen-files.json and unseen-files.md."""
    (docs / "unseen-files.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    lines = []
    for row in rows:
        counts = [f"{row[key]:,}" if row["compared"] else "-" for key in ("compared", "differ")]
        lines.append(f"| {' | '.join([row['name'], row['origin'], row['read_as'], *counts, row['note']])} |")
    (docs / "unseen-files.md").write_text(_HEAD + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what is given; keep the committed rows of the rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--public", type=Path)
    parser.add_argument("--lava-dl", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=DOCS)
    options = parser.parse_args()
    before = DOCS / "unseen-files.json"
    kept = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else []
    nir, net = ([row for row in kept if row["name"].endswith(suffix)] for suffix in (".nir", ".net"))
    if options.public:
        nir = [asdict(row) for row in public_rows(options.public)]
    if options.lava_dl:
        net = [asdict(row) for row in lava_dl_rows(options.lava_dl)]
    write([*nir, *net], options.output)


if __name__ == "__main__":
    main()
