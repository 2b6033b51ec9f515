"""Write metrics.jsonl as scalars and thresholds as histograms for TensorBoard, epoch by epoch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stl_deploy._util import processes
from stl_deploy._util.install import missing
from stl_deploy.config.schema import RunConfig
from stl_deploy.nn.network import Network

FOLDER = "tensorboard"


class Board:
    """Event files in the run folder's ``tensorboard``, if ``train.tensorboard`` is set; else it does nothing.

    Of several processes the first writes. Raises ToolError where tensorboard is asked for and not installed.
    """

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER
        self._kind = _writer() if config.train.tensorboard and processes.rank() == 0 else None
        self._writer: Any = None

    def add(self, record: Mapping[str, Any], network: Network) -> None:
        """Add one epoch (a record of `stl_deploy.training.loop`).

        The first one after a resume skips epochs that will be written again.
        """
        if self._kind is None:
            return
        epoch = record["epoch"]
        if self._writer is None:
            if epoch == 1:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._writer = self._kind(str(self._folder), purge_step=epoch)
        for name, value in _scalars(record):
            self._writer.add_scalar(name, value, epoch)
        for name, theta in network.thresholds().items():
            self._writer.add_histogram(f"thresholds/{name}", theta.flatten(), epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Return every number of a record but the counters, named by its path."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key}/")
        elif key not in ("epoch", "epochs") and not isinstance(value, str):
            yield prefix + key, value


def _writer() -> type[Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise missing("tensorboard", "is what train.tensorboard asks for") from None
    return SummaryWriter
