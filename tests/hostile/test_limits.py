"""Small files that ask for gigabytes of work, and records that training never wrote: one sentence, before it begins."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch

from stl_deploy._util.tensor_file import read_tensors, write_tensors
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import load_dataset
from stl_deploy.errors import GraphError, InputError
from stl_deploy.exporters.nir.check import check_file
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.runs.inputs import encode_split
from stl_deploy.training.loop import train
from stl_deploy.training.run_files import CHECKPOINT
from tests.hunt.run_formats import TINY


@pytest.mark.parametrize("what", ["conv", "pool"])
def test_paddings_of_twenty_thousand_are_refused(tmp_path: Path, what: str) -> None:
    twenty = np.array([20_000, 20_000])
    one = np.array([1, 1])
    if what == "conv":
        node = nir.Conv2d((4, 4), np.ones((1, 1, 3, 3), np.float32), 1, 20_000, 1, 1, np.zeros(1, np.float32))
    else:
        node = nir.SumPool2d(kernel_size=twenty, stride=one, padding=twenty // 2)
    nodes = {"input": nir.Input({"input": np.array([1, 4, 4])}), "node": node, "output": nir.Output({"output": one})}
    graph = nir.NIRGraph(nodes, [("input", "node"), ("node", "output")], type_check=False)
    write_nir(graph, tmp_path / "net.nir")
    with pytest.raises(
        GraphError, match=r"expected up to 16,777,216 positions of a padded input; found .* with padding "
    ):
        lower(read_nir(tmp_path / "net.nir"))
    assert "too-large" in {finding.slug for finding in check_file(tmp_path / "net.nir").findings}


def test_ten_thousand_steps_of_a_whole_split_are_refused() -> None:
    config = RunConfig.model_validate(TINY)
    split = load_dataset(config.dataset).train
    many = config.model_copy(update={"dataset": config.dataset.model_copy(update={"T": 10_000})})
    large = type(split)(split.pixels.repeat(30, 1, 1, 1), split.labels.repeat(30), split.levels)
    with pytest.raises(InputError, match=r"at most 8 GiB; found \d+ GiB .*dataset\.T"):
        encode_split(many, large)
    assert encode_split(many, large, 1).x.shape[:2] == (10_000, 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, dict[str, torch.Tensor], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trained")
    config = RunConfig.model_validate(TINY)
    train(config, folder)
    return config, *read_tensors(folder / CHECKPOINT)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("validation_loss", "low"),
        ("seconds", None),
        pytest.param("loss", 10**400, id="endless"),
        ("epoch", 7),
        ("rates", [0.5]),
        ("rates", {"lif1": "often", "lif2": 0.5}),
        ("thresholds", {"lif1": 1.0, "lif2": 1.0}),
        ("silent", {}),
        ("matmul", 3),
        ("threads", "two"),
    ],
)
def test_records_that_training_never_wrote_are_a_sentence(
    trained: tuple[RunConfig, dict[str, torch.Tensor], dict[str, Any]], tmp_path: Path, key: str, value: object
) -> None:
    config, tensors, about = trained
    changed = copy.deepcopy(about)
    changed["records"][0][key] = value
    write_tensors(tmp_path / CHECKPOINT, tensors, changed)
    with pytest.raises(InputError, match="the record of epoch 1 is not as training writes it"):
        train(config, tmp_path, resume=True)


@pytest.mark.parametrize("part", ["model", "best"])
def test_thresholds_that_overflow_are_a_sentence(
    trained: tuple[RunConfig, dict[str, torch.Tensor], dict[str, Any]], tmp_path: Path, part: str
) -> None:
    config, tensors, about = trained
    (name,) = [
        key for key in tensors if key.startswith(part) and "lif1" in key and "threshold" in key and "init" not in key
    ]
    write_tensors(tmp_path / CHECKPOINT, tensors | {name: torch.full_like(tensors[name], 1e38)}, about)
    with pytest.raises(InputError, match="layer 'lif1' has a threshold of infinity or NaN; the file is damaged"):
        train(config, tmp_path, resume=True)
