"""Writing: whole or not at all, and one sentence where nothing can be written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stl_deploy._util import temporary
from stl_deploy._util.files import cache_dir, read_input, read_npz, whole_file, write_npz, write_text
from stl_deploy._util.tensor_file import read_tensors, write_tensors
from stl_deploy._util.units import folder_bytes, in_words
from stl_deploy.errors import InputError
from stl_deploy.runs.configure import configure
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


def test_tensors_that_the_disk_refuses_are_a_sentence_and_leave_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, sys, torch\nfrom pathlib import Path\n"
        "from stl_deploy._util.tensor_file import write_tensors\n"
        "from stl_deploy.errors import InputError\nresource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n    write_tensors(Path(sys.argv[1]), {'w': torch.zeros(10_000)}, {})\n"
        "except InputError as error:\n    print(error)"
    )
    path = tmp_path / "w.safetensors"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {path}: ")
    assert "File too large" in done.stdout
    assert not list(tmp_path.iterdir())


def test_one_array_is_expected_where_several_are_found(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz", {"x__a": np.ones((2, 1, 3)), "x__b": np.ones((2, 1, 3))})
    with pytest.raises(InputError, match=r"x\.npz: expected one array 'x'; found x__a, x__b"):
        read_input(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (2_500_000, "2.5 MB"), (10**12, "1e+03 GB")]
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words


def test_a_file_that_goes_while_a_folder_is_measured_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").write_bytes(bytes(10))
    monkeypatch.setattr("os.walk", lambda folder: [(str(folder), [], ["gone", "there"])])
    assert folder_bytes(tmp_path) == 10


def test_what_others_left_is_not_swept_and_folders_go_with_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 9,999,999,999 is one that cannot be: its number is beyond what systems count to."""
    left = tmp_path / temporary._prefix().replace(f"-{os.getpid()}-", "-9999999999-")
    left.mkdir()
    (left / "half.txt").touch()
    user = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: user + 1)
    temporary.sweep(tmp_path)
    assert left.exists()
    monkeypatch.undo()
    temporary._swept.clear()
    temporary.sweep(tmp_path)
    assert not left.exists()


def test_where_no_temporary_folder_can_be_made_the_place_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(InputError, match=f"cannot write in {gone}: No such file"), temporary.temporary_folder(gone):
        pass


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: int, number: int) -> None:
        raise PermissionError

    assert temporary.is_alive(os.getpid())
    assert not temporary.is_alive(9_999_999_999)
    monkeypatch.setattr("os.kill", refuse)
    assert temporary.is_alive(1)


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


def test_a_user_without_a_home_has_a_cache_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where neither HOME nor an account says it
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert cache_dir().is_relative_to(tmp_path)
