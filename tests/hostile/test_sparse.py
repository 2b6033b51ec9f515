"""Files of holes, which take no room on a disk and all of a machine's memory."""

import pytest

from stl_deploy._util.tensor_file import read_tensors
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.own import folder
from stl_deploy.errors import InputError


def _holes(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def test_tensors_of_a_terabyte_are_refused_unread(tmp_path):
    path = _holes(tmp_path / "model.safetensors", 2**40)
    with pytest.raises(InputError, match=r"expected a safetensors file of at most \d+ bytes; found 1099511627776"):
        read_tensors(path)


def test_an_image_of_a_terabyte_is_refused_unread(tmp_path):
    pytest.importorskip("torchvision")
    for name in ("left", "right"):
        _holes(tmp_path / name / "0.png", 2**40)
    config = DatasetConfig.model_validate({"name": "folder", "path": str(tmp_path)})
    with pytest.raises(InputError, match=r"0.png: expected an image of at most \d+ bytes; found 1099511627776"):
        folder.look(config)
