"""One task: train, look at the test split, and write a record; what is recorded is not done again."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from examples.study.noise import under_noise
from examples.study.plan import Task
from stl_deploy._util.files import make_folder, read_json, whole_file, write_json, write_npz
from stl_deploy._util.system import keep_large_buffers
from stl_deploy.config.options import ThresholdForm
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import load_dataset
from stl_deploy.data.raw import Raw
from stl_deploy.data.sources import cifar10, fashion_mnist, mnist
from stl_deploy.energy.measure import EnergyReport, measure_energy
from stl_deploy.energy.models.grid import quoted
from stl_deploy.energy.prices.price_list import middle
from stl_deploy.exporters.netx.forms import compare_forms, quantise_forms
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.runs.ann_twin import measure_twin
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split, split_spec
from stl_deploy.training.checkpoint import load_network, model_facts
from stl_deploy.training.loop import Record, train
from stl_deploy.verbs.quantising import CALIBRATION

PRICES = "horowitz45_fp32"
READERS = {"mnist": mnist, "fashion_mnist": fashion_mnist, "cifar10": cifar10}
FORMS: tuple[ThresholdForm, ...] = ("folded", "per-layer")
"""Of thresholds in Loihi's integers: taken into each channel's weights, or one for the layer."""


def recorded(task: Task, out: Path) -> dict[str, Any] | None:
    """The record of a task that was done with this very configuration."""
    path = out / "records" / f"{task.name}.json"
    if not path.is_file():
        return None
    record: dict[str, Any] = read_json(path)
    return record if record["config"] == task.config and record["asked"] == _asked(task) else None


def do(task: Task, out: Path, data_dir: Path | None) -> dict[str, Any]:
    """The record of a task, worked out if it is not there. Runs on one thread."""
    record = recorded(task, out)
    if record is None:
        torch.set_num_threads(1)
        keep_large_buffers()
        record = _train(task, out, data_dir) if not task.levels else _noise(task, out, data_dir)
        make_folder(out / "records")
        write_json(out / "records" / f"{task.name}.json", record)
    return record


def _train(task: Task, out: Path, data_dir: Path | None) -> dict[str, Any]:
    folder = out / "nets" / task.name
    epochs: list[Record] = []
    result = train(_configuration(task, out, data_dir), folder, progress=epochs.append, curves=False)
    kept = ("epoch", "validation_accuracy", "rates", "thresholds", "silent", "saturated")
    facts = model_facts(folder)
    record = _head(task) | {
        "epoch": result.epoch,
        "validation_accuracy": result.validation_accuracy,
        "test": result.test.as_dict(),
        "at_or_below_zero": {
            n: float((theta <= 0).double().mean()) for n, theta in result.network.thresholds().items()
        },
        "epochs": [{key: epoch[key] for key in kept} for epoch in epochs],
        "seconds": facts["seconds"],
    }
    if task.counted:
        twin = None if task.twin is None else out / "nets" / task.twin
        record["counts"] = _counts(folder, task.counted, twin)
    if task.integers:
        record["integers"] = _integers(folder, task.integers)
    return record


def _noise(task: Task, out: Path, data_dir: Path | None) -> dict[str, Any]:
    """Of the network that the part ``modes`` trained, trained now if it is not there."""
    source = Task("modes", task.dataset, task.labels, task.seed, task.images, task.config)
    clean = do(source, out, data_dir)
    network, _ = load_network(out / "nets" / source.name)
    config = _configuration(task, out, data_dir)
    accuracies = under_noise(network, load_dataset(config.dataset).test, config, task.levels)
    return _head(task) | {"clean": clean["test"]["accuracy"], "noise": accuracies}


def _counts(folder: Path, images: int, twin: Path | None) -> dict[str, Any]:
    """Per inference: synops, the ANN's MACs, and joules modelled from them; with ``twin`` under every dataflow, too."""
    network, config = load_network(folder)
    test = load_dataset(config.dataset).test
    spec = split_spec(config, test)
    folded = fold(network, coding=spec.coding, fraction_bits=spec.fraction_bits, bound=spec.bound, exact_grid=False)
    program, x = lower(folded.graph), encode_split(config, test, images).x
    measured = None if twin is None else measure_twin(program, twin, x)
    report = measure_energy(program, x, input_coding=spec.coding, prices=[PRICES], twin=measured)
    totals, (priced,) = report.counts.totals, report.energy
    assert priced.snn is not None
    assert priced.ann is not None
    counts = {
        "images": images,
        "synops_AC": totals.synops_AC / images,
        "synops_MAC": totals.synops_MAC / images,
        "ann_macs": totals.ann_macs_exact / images,
        "snn_joules": priced.snn.priced[0],
        "ann_joules": priced.ann.priced[0],
        "prices": PRICES,
    }
    return counts if measured is None else counts | {"ann_active": measured.fraction, "grid": _grid(report)}


def _grid(report: EnergyReport) -> list[dict[str, Any]]:
    """Both sides' joules in each cell of the comparison grid, the ANN's zeros skipped as measured."""
    chosen = quoted(report.comparisons)
    return [
        {
            "dataflow": cell.flow.fetch,
            "sums": cell.flow.sums,
            "prices": cell.prices.name,
            "quoted": cell is chosen,
            "snn_joules": middle(cell.comparison.snn_J),
            "ann_joules": middle(cell.comparison.ann_J),
        }
        for cell in report.comparisons
        if cell.ann_zeros == "skipped"
    ]


def _integers(folder: Path, images: int) -> dict[str, float]:
    """Accuracy on the first test images of the graph, and of Loihi's integers in each of `FORMS`."""
    folded = fold_run(folder, folder / "net.nir")
    test = encode_split(folded.config, folded.data.test, images)
    calibration = encode_split(folded.config, folded.data.train, CALIBRATION).x
    rows = compare_forms(folded.program, quantise_forms(folded.program, calibration, FORMS), test.x, test.labels)
    return {row.form.replace("as folded", "graph"): row.accuracy for row in rows if row.accuracy is not None}


def _head(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "part": task.part,
        "dataset": task.dataset,
        "labels": task.labels,
        "seed": task.seed,
        "asked": _asked(task),
        "config": task.config,
    }


def _asked(task: Task) -> dict[str, Any]:
    asked = {"images": task.images, "levels": list(task.levels), "counted": task.counted}
    more = {"test": task.test, "integers": task.integers, "twin": task.twin}
    return asked | {key: value for key, value in more.items() if value}


def _configuration(task: Task, out: Path, data_dir: Path | None) -> RunConfig:
    config = RunConfig.model_validate(task.config)
    if task.dataset == "cifar10" and task.images is not None:
        path = _reduced(task.images, task.test, out, data_dir)
        changes = {"name": "npz", "path": str(path)}
    else:
        folder = data_folder(task.dataset, task.images, out, data_dir)
        changes = {} if folder is None else {"data_dir": str(folder)}
    return config.model_copy(update={"dataset": config.dataset.model_copy(update=changes)})


def _reduced(images: int, test: int | None, out: Path, data_dir: Path | None) -> Path:
    """CIFAR-10 with the first ``images`` of its training and ``test`` of its test split, as many of each class."""
    path = out / "data" / f"cifar10-{images}-{test}.npz"
    if not path.is_file():
        raw = cifar10(data_folder("cifar10", None, out, data_dir))
        assert raw.test is not None
        assert raw.test_labels is not None
        train = first_of_each_class(raw.train_labels, images)
        tested = first_of_each_class(raw.test_labels, len(raw.test) if test is None else test)
        make_folder(path.parent)
        arrays = {"x": raw.train[train], "y": raw.train_labels[train]}
        write_npz(path, arrays | {"x_test": raw.test[tested], "y_test": raw.test_labels[tested]})
    return path


def first_of_each_class(labels: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """Places of ``count`` samples, the first of each class in turn."""
    ranks = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        there = labels == label
        ranks[there] = np.arange(int(there.sum()))
    return np.lexsort((labels, ranks))[:count]


def data_folder(dataset: str, images: int | None, out: Path, data_dir: Path | None) -> Path | None:
    """Where a dataset lies: under ``data_dir`` (None: where downloads go), or cut to its first training images."""
    source = None if data_dir is None or dataset not in READERS else data_dir / dataset
    if source is not None and not source.is_dir():
        source = data_dir
    if images is None or dataset not in READERS:
        return source
    folder = out / "data" / f"{dataset}-{images}"
    if not (folder / "t10k-labels-idx1-ubyte").is_file():
        make_folder(folder)
        _write_first(READERS[dataset](source), images, folder)
    return folder


def _write_first(raw: Raw, images: int, folder: Path) -> None:
    assert raw.test is not None
    assert raw.test_labels is not None
    parts = (
        ("train-images-idx3-ubyte", raw.train[:images, 0]),
        ("train-labels-idx1-ubyte", raw.train_labels[:images].astype("u1")),
        ("t10k-images-idx3-ubyte", raw.test[:, 0]),
        ("t10k-labels-idx1-ubyte", raw.test_labels.astype("u1")),
    )
    for name, array in parts:
        with whole_file(folder / name) as temporary:
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            temporary.write_bytes(header + array.tobytes())
