"""Writing: whole or not at all, and one sentence where nothing can be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from stl_deploy._util.files import read_npz, whole_file, write_npz, write_text
from stl_deploy._util.tensor_file import read_tensors, write_tensors
from stl_deploy.errors import InputError
from stl_deploy.pipeline.configure import configure
from stl_deploy.training.loop import train


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a b ü" / "file.txt"
    write_text(path, "old")

    def write_half() -> None:
        with whole_file(path) as temporary:
            assert temporary.parent == path.parent  # the same disk: the last step is a rename
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_folders_and_devices_are_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, found in ((tmp_path, "a folder"), (pipe, "no plain file")):
        with pytest.raises(InputError, match=f"{found}; name a file to write"):
            write_text(path, "text")
    assert pipe.is_fifo()


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file: expected a folder to write into; found a file; name another"):
        write_text(tmp_path / "file" / "inner.txt", "text")


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*x: No space left"), whole_file(tmp_path / "x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_training_into_a_file_is_refused_before_it_begins(tmp_path: Path) -> None:
    config = configure("digits", ("train.epochs=1",))
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"file: expected a folder to write into; found a file; name another"):
        train(config, path)
    assert path.read_text() == "mine"


def test_a_checkpoint_cut_short_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_tensors(path, {"w": torch.ones(3)}, {"epoch": 1})

    def cut_short(_tensors: object, target: Path, **_: object) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("stl_deploy._util.tensor_file.save_file", cut_short)
    with pytest.raises(KeyboardInterrupt):
        write_tensors(path, {"w": torch.zeros(3)}, {"epoch": 2})
    assert read_tensors(path)[1] == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_arrays_of_any_name_and_nothing_else(tmp_path: Path) -> None:
    arrays = {
        name: np.arange(3, dtype=np.float32) for name in ("x", "file", "args", "allow_pickle", "spikes__lif1.lif")
    }
    write_npz(tmp_path / "a.npz", arrays)
    found = read_npz(tmp_path / "a.npz")
    assert sorted(found) == sorted(arrays)
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    with np.load(tmp_path / "a.npz") as read:
        assert sorted(read.files) == sorted(arrays)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npz(tmp_path / "b.npz", {"x": np.array([{}], dtype=object)})
    assert not (tmp_path / "b.npz").exists()
