"""A run folder's files that depend on the weights, and their removal."""

from __future__ import annotations

import glob
from pathlib import Path

from stl_deploy._util import processes
from stl_deploy._util.lock import require_no_writer
from stl_deploy._util.remedies import named, option
from stl_deploy.errors import InputError
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, MANIFEST, METRICS, MODEL, is_finished

TWIN = "twin"
"""The run folder of the ANN twin, inside that of its network."""
FRONTIER = "frontier"
"""The folder of narrower ANNs, each a run folder, inside that of their network."""
_RESULTS = (
    MANIFEST,
    "verify.json",
    "energy.json",
    "tradeoff.json",
    "tradeoff.html",
    "report.html",
    "report.json",
    "layers.csv",
    "neurobench.json",
    "report.tex",
    "report.csv",
    "report.bib",
    "net.nir",
    "net.program",
    "net.onnx",
    "net.net",
    "test.npz",
    "quantised.json",
)


_TRAINED = (MODEL, CONFIG, CHECKPOINT, METRICS, "curves.svg")


def forget_results(run_dir: Path) -> None:
    """Remove an earlier run's results from its weights, the manifest first: without it no verb trusts the rest."""
    for name in _RESULTS:
        (run_dir / name).unlink(missing_ok=True)
    for data in run_dir.glob(f"{glob.escape('net.onnx')}.*.data"):
        data.unlink(missing_ok=True)


def forget_training(run_dir: Path) -> None:
    """Remove a training, its results, and its ANN twin; other files stay."""
    _forget(run_dir)
    forget_twin(run_dir)


def forget_twin(run_dir: Path) -> None:
    """Remove the ANN twin of an earlier training, and narrower ones: they belong to that one's configuration."""
    for folder in (run_dir / TWIN, *(run_dir / FRONTIER).glob("*/")):
        _forget(folder)
        _remove_empty(folder)
    _remove_empty(run_dir / FRONTIER)


def _forget(folder: Path) -> None:
    forget_results(folder)
    for name in _TRAINED:
        (folder / name).unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def require_begun(run_dir: Path) -> None:
    """Raise InputError if there is nothing to resume."""
    if not any((run_dir / name).is_file() for name in (CONFIG, CHECKPOINT)):
        raise InputError(f"{run_dir}: expected a folder in which 'train' began; found nothing to resume")


def require_resumable(run_dir: Path) -> None:
    """`require_begun`; raises InputError also for a model without its checkpoint, as a ready-made one is."""
    require_begun(run_dir)
    if (run_dir / MODEL).is_file() and not (run_dir / CHECKPOINT).is_file():
        raise InputError(
            f"{run_dir}: expected a checkpoint to continue from; found only a model; "
            f"{option('overwrite')} trains anew, {named('output')} names another folder"
        )


def refuse_replacing(run_dir: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise InputError if another process writes, a training would be overwritten, or there is none to resume."""
    if resume and overwrite:
        raise InputError(f"{named('resume')} and {named('overwrite')} exclude each other; give one")
    if processes.rank() == 0:
        require_no_writer(run_dir)
    if resume:
        require_begun(run_dir)
    if resume or overwrite:
        return
    kept = [name for name in (MANIFEST, MODEL, CHECKPOINT) if (run_dir / name).is_file()]
    if kept:
        if MANIFEST in kept:
            what = "a finished run" if is_finished(run_dir) else "a run that has not ended"
        else:
            what = "a finished training" if MODEL in kept else "a training that has not ended"
        resumed = f"{option('resume')} continues it, " if CHECKPOINT in kept else ""
        raise InputError(
            f"{run_dir}: holds {what}; {resumed}{option('overwrite')} replaces it, {named('output')} names another "
            "folder"
        )
