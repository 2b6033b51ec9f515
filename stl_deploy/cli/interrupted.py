"""What a run folder keeps when a verb is interrupted, in one truthful sentence."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from stl_deploy._util.units import counted
from stl_deploy._util.untrusted import read_text
from stl_deploy.errors import InputError
from stl_deploy.training.run_files import CHECKPOINT, METRICS, MODEL, is_finished


def kept(run_dir: Path, arguments: Sequence[str]) -> str:
    """What is there now, and the command that goes on from it. arguments: of the interrupted call."""
    same = [each for each in arguments if each not in ("--overwrite", "--resume")]
    again = shlex.join(["stl-deploy", *same, "--overwrite" if "--pretrained" in same else "--resume"])
    if is_finished(run_dir):
        return f"{run_dir} holds a finished run, as before"
    if (run_dir / MODEL).is_file():
        return f"the trained model is kept in {run_dir}, the rest is not whole; go on with: {again}"
    if (run_dir / CHECKPOINT).is_file():
        epochs = _epochs(run_dir)
        what = "the checkpoint is" if epochs is None else f"{counted(epochs, 'epoch')} {'is' if epochs == 1 else 'are'}"
        return f"{what} kept in {run_dir}; go on with: {again}"
    return "no epoch was finished, so nothing is kept"


def _epochs(run_dir: Path) -> int | None:
    try:
        return len(read_text(run_dir / METRICS, "metrics").splitlines())
    except InputError:
        return None
