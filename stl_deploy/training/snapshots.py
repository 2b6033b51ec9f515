"""Weights of some epochs, kept beside the checkpoint so that networks of one training can be compared.

``snapshots/epoch-00005.safetensors`` in the run folder, one for each ``train.keep_every``-th epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from stl_deploy._util.tensor_file import write_tensors

FOLDER = "snapshots"


def keep(run_dir: Path, epoch: int, every: int | None, weights: Mapping[str, Tensor]) -> None:
    """Write the weights of ``epoch`` (from 1) if it is a multiple of ``every``; None keeps nothing.

    Snapshots of this epoch and of later ones are of an older training and go.
    """
    for old, path in snapshots(run_dir).items():
        if old >= epoch:
            path.unlink()
    if every is not None and epoch % every == 0:
        (run_dir / FOLDER).mkdir(exist_ok=True)
        write_tensors(run_dir / FOLDER / f"epoch-{epoch:05}.safetensors", weights, {"epoch": epoch})


def snapshots(run_dir: Path) -> dict[int, Path]:
    """Return the file of each kept epoch, in order."""
    files = (run_dir / FOLDER).glob("epoch-*.safetensors")
    numbered = {path.stem.removeprefix("epoch-"): path for path in files}
    return {int(epoch): path for epoch, path in sorted(numbered.items()) if epoch.isdecimal()}
