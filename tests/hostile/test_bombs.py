"""Small files that take gigabytes or minutes when they are parsed: one sentence, within memory and time."""

from __future__ import annotations

import gzip
import os
import stat
import struct
import sys
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from stl_deploy._util import isolated
from stl_deploy._util.files import read_json
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data import load_dataset
from stl_deploy.data.sources import read_idx
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.runs.user_module import load_module


def _of_worker() -> int:
    """The most memory that the worker process has held, in bytes."""
    assert isolated._worker is not None
    status = Path(f"/proc/{isolated._worker.popen.pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


NET = "import torch\nnet = torch.nn.Linear(4, 3)\nhalf = torch.nn.Linear(4, 3, dtype=torch.bfloat16)\n"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(NET)
    return path


@pytest.mark.parametrize(("name", "kind"), [("net", torch.float32), ("half", torch.bfloat16)])
def test_weights_come_back_to_the_bit(net: Path, tmp_path: Path, name: str, kind: torch.dtype) -> None:
    state = {"weight": torch.randn(3, 4).to(kind).T.contiguous().T, "bias": torch.randn(3).to(kind)}
    torch.save(state, tmp_path / "w.pt")
    module = load_module(f"{net}:{name}", tmp_path / "w.pt")
    assert all(torch.equal(value, state[key]) and value.dtype == kind for key, value in module.state_dict().items())


def _deflated(path: Path) -> None:
    """A file of torch.save whose half GiB of zeros is compressed, as torch.save never does."""
    torch.save({"weight": torch.zeros(2**20), "bias": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    (name,) = [name for name, content in members.items() if len(content) == 2**22]
    members = {key: value.replace(b"J\x00\x00\x10\x00", b"J\x00\x00\x00\x08") for key, value in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for key, value in members.items():
            if key == name:
                with bomb.open(key, "w", force_zip64=True) as stream:
                    for _ in range(2**29 // 2**24):
                        stream.write(bytes(2**24))
            else:
                bomb.writestr(key, value)


def _stretched(path: Path) -> None:
    """A tensor of 1 TB that lies in four bytes."""
    torch.save({"weight": torch.zeros(1).expand(2**38), "bias": torch.zeros(3)}, path)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
@pytest.mark.parametrize("make", [_deflated, _stretched])
def test_a_checkpoint_that_unpacks_to_gigabytes(net: Path, tmp_path: Path, make: object) -> None:
    make(tmp_path / "bomb.pt")  # type: ignore[operator]
    isolated._stop()
    with pytest.raises(InputError, match=r"bomb\.pt: (takes more memory|damaged, truncated or no file of torch)"):
        load_module(f"{net}:net", tmp_path / "bomb.pt")
    assert _of_worker() < 2**29 + 2**28


def _element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def _mat(*variables: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM") + b"".join(variables)


def _matrix(name: bytes, kind: int, shape: tuple[int, ...], content: bytes) -> bytes:
    flags = _element(6, struct.pack("<II", kind, 0))
    return _element(14, flags + _element(5, struct.pack(f"<{len(shape)}i", *shape)) + _element(1, name) + content)


def _cells(depth: int) -> bytes:
    """A cell in a cell in a cell: scipy's reader goes down by calls of C."""
    cell = _matrix(b"", 6, (1, 1), _element(9, struct.pack("<d", 0)))
    for _ in range(depth):
        cell = _matrix(b"x" if _ == depth - 1 else b"", 1, (1, 1), cell)
    return cell


def _packed(content: bytes) -> bytes:
    return struct.pack("<II", 15, len(packed := zlib.compress(content))) + packed


@pytest.mark.parametrize("what", ["nested cells", "a matrix of zeros", "no matrix"])
def test_a_matlab_file_that_crashes_or_swells(tmp_path: Path, what: str) -> None:
    contents = {
        "nested cells": _mat(_packed(_cells(20_000))),
        "a matrix of zeros": _mat(_packed(_matrix(b"x", 9, (2**25, 1), _element(2, bytes(2**27))))),
        "no matrix": _mat(_packed(bytes(2**27))),
    }
    for name in ("QTDB_train.mat", "QTDB_test.mat"):
        (tmp_path / name).write_bytes(contents[what])
    with pytest.raises(InputError, match=r"QTDB_train\.mat: "):
        load_dataset(DatasetConfig(name="qtdb_ecg", path=str(tmp_path), encoder="sequence"))


def test_an_idx_file_of_gigabytes(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.gz", "wb", 9) as stream:
        stream.write(struct.pack(">4B3I", 0, 0, 8, 3, 2_900_000, 28, 28))
        for _ in range(20):
            stream.write(bytes(2**20))
    with pytest.raises(InputError, match=r"bomb\.gz: expected at most 134,217,728 bytes; found"):
        read_idx(tmp_path / "bomb.gz", shape=(None, 28, 28))


def test_a_dotted_key_without_end(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text(".".join(["a"] * 30_000) + " = 1\n")
    (tmp_path / "long.toml").write_text("# " + "x" * 100_000)
    started = time.process_time()
    with pytest.raises(InputError, match=r"expected lines of at most 200 dots"):
        load_prices(tmp_path / "deep.toml")
    with pytest.raises(InputError, match=r"of at most 65536 bytes"):
        load_prices(tmp_path / "long.toml")
    assert time.process_time() - started < 5  # it took minutes


def test_json_of_sixty_megabytes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"[" + b"{}," * (20 * 2**20) + b"{}]")
    with pytest.raises(InputError, match=r"expected a JSON file of at most 16777216 bytes"):
        read_json(tmp_path / "a.json")


def test_of_many_problems_five_are_told(tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text("".join(f"k{i}: 1\n" for i in range(3000)))
    with pytest.raises(ConfigError) as found:
        load_config(tmp_path / "many.yaml")
    lines = str(found.value).splitlines()
    assert len(lines) == 6
    assert lines[-1].endswith("problems")
    assert "and 2,99" in lines[-1]
    (tmp_path / "long.yaml").write_text("- 1\n" * 2**17)
    with pytest.raises(ConfigError, match="of at most 262144 bytes"):
        load_config(tmp_path / "long.yaml")


def test_no_program_is_started_for_postscript_that_is_named_as_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision")
    (tmp_path / "bin").mkdir()
    for name in ("gs", "gswin64c"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / "bin" / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    isolated._stop()
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        (tmp_path / "images" / label / "x.png").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
        )
    with pytest.raises(InputError, match=r"x\.png: cannot be read as an image"):
        load_dataset(DatasetConfig(name="folder", path=str(tmp_path / "images"), T=2))
    isolated._stop()
    assert not (tmp_path / "started").exists()


def test_pixels_without_end_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.new("1", (10_000, 10_000)).save(tmp_path / label / "x.png")
    with pytest.raises(InputError, match=r"x\.png: more pixels than are safe to decode"):
        load_dataset(DatasetConfig(name="folder", path=str(tmp_path), T=2))
