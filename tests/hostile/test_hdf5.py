"""SHD's HDF5 passes the guard that NIR files pass."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from stl_deploy.data.events import heidelberg
from stl_deploy.errors import InputError

SHAPE = (700,)


def _write(path, edit=lambda file: None, count=3):
    with h5py.File(path, "w") as file:
        file["labels"] = np.arange(count, dtype=np.uint16)
        times = file.create_dataset("spikes/times", (count,), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (count,), h5py.vlen_dtype(np.uint16))
        for i in range(count):
            times[i], units[i] = np.linspace(0, 1, 50), np.arange(50)
        file["extra/keys"] = np.array([b"zero", b"one"])
        file["extra/meta_info/age"] = np.arange(12)
        edit(file)
    return path


def _replace(name, **options):
    def edit(file):
        del file[name]
        file.create_dataset(name, **options)

    return edit


def test_a_whole_file_is_read(tmp_path):
    labels, recordings = heidelberg(_write(tmp_path / "shd.h5"), SHAPE)
    assert labels.tolist() == [0, 1, 2]
    assert [recording.where.tolist() for recording in recordings] == [list(range(50))] * 3


def test_labels_without_end_are_refused_unread(tmp_path):
    edit = _replace("labels", shape=(2**40,), dtype=np.int64, chunks=(2**10,))
    with pytest.raises(InputError, match=r"labels' declares \[1099511627776\] int64: 8,192 GiB"):
        heidelberg(_write(tmp_path / "shd.h5", edit), SHAPE)


def test_lists_without_end_are_refused_unread(tmp_path):
    edit = _replace("spikes/times", shape=(2**40,), dtype=h5py.vlen_dtype(np.float32), chunks=(2**10,))
    with pytest.raises(InputError, match=r"spikes/times' declares"):
        heidelberg(_write(tmp_path / "shd.h5", edit), SHAPE)


def test_links_to_other_files_are_not_followed(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"\x01\x00" * 1000)
    _write(tmp_path / "other.h5")

    def external_link(file):
        del file["labels"]
        file["labels"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/labels")

    raw = _replace("labels", shape=(3,), dtype=np.uint16, external=[(str(secret), 0, 6)])
    for edit in (external_link, raw):
        with pytest.raises(InputError, match=r"found a link to elsewhere|found data in another file"):
            heidelberg(_write(tmp_path / "shd.h5", edit), SHAPE)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("labels", np.array([0.5, 1, 2])),
        ("labels", np.zeros((3, 2), int)),
        ("spikes/times", np.zeros(3)),
        ("spikes/units", np.array([b"a", b"b", b"c"])),
    ],
)
def test_arrays_of_another_kind_are_a_sentence(tmp_path, name, values):
    path = _write(tmp_path / "shd.h5", _replace(name, data=values))
    with pytest.raises(InputError, match=r"shd\.h5: "):
        list(heidelberg(path, SHAPE)[1])


def test_times_that_are_no_times_are_refused(tmp_path):
    def edit(file):
        file["spikes/times"][1] = np.full(50, np.inf, np.float16)

    _, recordings = heidelberg(_write(tmp_path / "shd.h5", edit), SHAPE)
    with pytest.raises(InputError, match="found NaN, infinity or values beyond"):
        list(recordings)


def test_one_byte_of_damage_anywhere_ends_in_time(tmp_path):
    """Among these are the damages that HDF5 loops on, and that it crashes on."""
    whole = _write(tmp_path / "shd.h5").read_bytes()
    rng = np.random.default_rng(1)
    answers = set()
    for _ in range(int(os.environ.get("STL_DEPLOY_MUTANTS", "150"))):
        content = bytearray(whole)
        content[int(rng.integers(len(content) // 2))] = int(rng.integers(256))
        (tmp_path / "shd.h5").write_bytes(content)
        try:
            labels, recordings = heidelberg(tmp_path / "shd.h5", SHAPE)
            list(zip(recordings, labels, strict=True))
            answers.add("read")
        except InputError:
            answers.add("refused")
    assert answers == {"read", "refused"}


FULL = """
import resource, sys
from pathlib import Path
from stl_deploy.errors import InputError
from stl_deploy.exporters.netx.file import write_netx
from stl_deploy.exporters.nir.file import write_nir
from tests.exporters.netx.nets import special_cases
from tests.hostile.nets import small_graph

net = next(iter(special_cases().values()))[0]
for most in (0, 512, 4096, 2**20):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    for write, what, place in ((write_nir, small_graph(), "a.nir"), (write_netx, net, "a.net")):
        try:
            write(what, Path(sys.argv[1]) / place)
        except InputError as error:
            assert "cannot write" in str(error) and "File too large" in str(error), error
        else:
            assert most == 2**20, (place, most)
"""


def test_a_disk_that_is_full_is_a_sentence_not_the_end_of_the_process(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} <= {"a.nir", "a.net"}
