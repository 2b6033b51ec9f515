"""Data sets: recordings of events, IDX files, images in folders, npz files of one's own."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import h5py
import numpy as np

from tests.hunt.damage import damage_bytes
from tests.hunt.mutant import Format, npy
from tests.hunt.structures import damage_gzip, damage_zip, member


def _gesture() -> list[bytes]:
    rng = np.random.default_rng(0)
    events = np.stack([rng.integers(0, 128, 50), rng.integers(0, 128, 50), rng.integers(0, 2, 50), np.arange(50)], 1)
    return [npy(events.astype(kind)) for kind in (np.float64, np.uint32, np.int16)]


def _try_gesture(path: Path) -> str:
    from stl_deploy.data.events import gather, gesture_npy

    gather(gesture_npy(path, (2, 128, 128)), 4, (2, 128, 128), "time")
    return "read"


def _nmnist_zip() -> list[bytes]:
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for label in range(3):
            events = rng.integers(0, 34, (40, 5)).astype(np.uint8)
            archive.writestr(member(f"Train/{label}/0000{label}.bin", zipfile.ZIP_DEFLATED), events.tobytes())
    return [stream.getvalue()]


def _try_nmnist(path: Path) -> str:
    from stl_deploy.data.event_sources import EVENT_SOURCES
    from stl_deploy.data.events import gather

    source = EVENT_SOURCES["n_mnist"]
    for events, _ in source.recordings([path], source.shape):
        gather(events, 3, source.shape, "count")
    return "read"


def _shd() -> list[bytes]:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["labels"] = np.arange(3, dtype=np.uint16)
        times = file.create_dataset("spikes/times", (3,), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (3,), h5py.vlen_dtype(np.uint16))
        for i in range(3):
            times[i], units[i] = np.linspace(0, 1, 50), np.arange(50)
        file["extra/keys"] = np.array([b"zero", b"one"])
    return [stream.getvalue()]


def _try_shd(path: Path) -> str:
    from stl_deploy.data.events import gather, heidelberg

    labels, recordings = heidelberg(path, (700,))
    for events, _ in zip(recordings, labels, strict=True):
        gather(events, 4, (700,), "time")
    return "read"


def _idx() -> list[bytes]:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    return [gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 3, 28, 28) + images.tobytes(), mtime=0)]


def _try_idx(path: Path) -> str:
    from stl_deploy.data.sources import read_idx

    read_idx(path, shape=(None, 28, 28))
    return "read"


@cache
def _images() -> list[bytes]:
    from PIL import Image

    found = []
    for mode, kinds in (("RGB", ("png", "jpeg", "bmp", "webp", "tiff", "gif", "ppm")), ("L", ("png", "ppm")),
                        ("P", ("png", "gif")), ("I;16", ("png",)), ("RGBA", ("png", "webp"))):  # fmt: skip
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)).convert("RGB")
        for kind in kinds:
            stream = io.BytesIO()
            (image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)).save(stream, kind)
            found.append(stream.getvalue())
    return found


def _try_image(path: Path) -> str:
    """One of two classes has an image that is whole; the mutant is first, and decides on shape and colours."""
    from stl_deploy.config.schema import DatasetConfig
    from stl_deploy.data.own.folder import load, look

    for label, content in (("a", path.read_bytes()), ("b", _images()[0])):
        (path.parent / "own" / label).mkdir(parents=True, exist_ok=True)
        (path.parent / "own" / label / "image.png").write_bytes(content)
    config = DatasetConfig.model_validate({"name": "folder", "path": str(path.parent / "own"), "T": 2})
    look(config)
    load(config)
    return "read"


@cache
def _own_npz() -> list[bytes]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 1, 4, 4))
    found = []
    for arrays in (
        {"x": x.astype(np.uint8), "y": np.arange(12) % 3},
        {"x": x / np.float32(255), "y": np.arange(12) % 3, "x_val": x[:2] / np.float32(255), "y_val": np.arange(2)},
        {"x": rng.random((12, 3, 1, 4, 4)) < 0.5, "y": np.arange(12) % 2, "classes": np.array(["left", "right"])},
    ):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, array in arrays.items():
                archive.writestr(member(f"{name}.npy"), npy(np.asarray(array)))
        found.append(stream.getvalue())
    return found


def _try_own_npz(path: Path) -> str:
    from stl_deploy.config.schema import DatasetConfig
    from stl_deploy.data import load_dataset

    config = DatasetConfig.model_validate(
        {"name": "npz", "path": str(path), "T": 3, "validation_fraction": 0.3, "test_fraction": 0.3}
    )
    load_dataset(config)
    return "read"


_STREAMS = b"""<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/"><node name="0"
path="/mainloop/Recorder/outInfo/0/"><attr key="compression" type="string">NONE</attr><attr key="typeIdentifier"
type="string">EVTS</attr><node name="info" path="/mainloop/Recorder/outInfo/0/info/"><attr key="sizeX"
type="int">128</attr><attr key="sizeY" type="int">128</attr></node></node></node></dv>"""


@cache
def _aedat4() -> list[bytes]:
    """A header that names a stream of events, and two packets of it: flatbuffers, by hand."""
    streams = struct.pack("<I", len(_STREAMS)) + _STREAMS + b"\0"
    header = struct.pack("<I4s5H6xiiqI", 24, b"IOHE", 10, 20, 4, 8, 16, 16, 0, -1, 4) + streams
    parts = [b"#!AER-DAT4.0\r\n", struct.pack("<I", len(header)), header]
    rng = np.random.default_rng(0)
    for count in (30, 20):
        events = np.zeros(count, [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "?"), ("pad", "V3")])
        events["t"], events["on"] = np.arange(count) * 100, rng.integers(0, 2, count)
        events["x"], events["y"] = rng.integers(0, 128, (2, count))
        packet = struct.pack("<I4s3HHiI4xI", 16, b"EVTS", 6, 8, 4, 0, 8, 8, count) + events.tobytes()
        parts += [struct.pack("<iiI", 0, len(packet) + 4, len(packet)), packet]
    return [b"".join(parts)]


def _damage_packets(content: bytes, rng: np.random.Generator) -> bytes:
    header = content.index(b"</dv>") + 6
    return content[:header] + damage_bytes(content[header:], rng)


def _try_aedat4(path: Path) -> str:
    from stl_deploy.data.events import aedat4, gather

    gather(aedat4(path, (2, 128, 128)), 4, (2, 128, 128), "time")
    return "read"


@cache
def _mat() -> list[bytes]:
    from scipy.io import savemat

    rng, found = np.random.default_rng(0), []
    x, y = rng.integers(-1, 2, (6, 9, 4)).astype(np.int16), np.eye(6, dtype=np.uint8)[rng.integers(0, 6, (6, 9))]
    cells = np.empty((1, 2), object)
    cells[0] = [x, np.array(["text"])]
    for packed in (False, True):
        for arrays in ({"x": x, "y": y}, {"x": x, "y": y, "z": cells}, {"x": x.astype(float), "y": y, "s": {"a": x}}):
            stream = io.BytesIO()
            savemat(stream, arrays, do_compression=packed)
            found.append(stream.getvalue())
    return found


def _damage_elements(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage what is compressed, element by element, and compress it again; nest one in itself now and then."""
    parts, place = [content[:128]], 128
    while place + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, place)
        data = content[place + 8 : place + 8 + size]
        place += 8 + size + (0 if kind == 15 else -size % 8)
        if kind == 15:
            data = zlib.decompress(data)
        if rng.random() < 0.6:
            data = damage_bytes(data, rng)
        parts.append(struct.pack("<II", kind, len(packed := zlib.compress(data))) + packed if kind == 15 else
                     struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8))  # fmt: skip
    return b"".join(parts)


def _try_mat(path: Path) -> str:
    from stl_deploy.config.schema import DatasetConfig
    from stl_deploy.data.own.qtdb_ecg import load

    folder = path.parent / "qtdb"
    folder.mkdir()
    (folder / "QTDB_train.mat").write_bytes(path.read_bytes())
    (folder / "QTDB_test.mat").write_bytes(_mat()[0])
    load(DatasetConfig.model_validate({"name": "qtdb_ecg", "path": str(folder), "encoder": "sequence"}))
    return "read"


FORMATS: Mapping[str, Format] = {
    "gesture": Format(".npy", _gesture, _try_gesture),
    "n_mnist": Format(".zip", _nmnist_zip, _try_nmnist, (damage_zip, damage_bytes)),
    "shd": Format(".h5", _shd, _try_shd, hdf5=True),
    "aedat4": Format(".aedat4", _aedat4, _try_aedat4, (_damage_packets, damage_bytes), needs="aedat"),
    "idx": Format(".gz", _idx, _try_idx, (damage_gzip, damage_bytes)),
    "mat": Format(".mat", _mat, _try_mat, (_damage_elements, damage_bytes)),
    "images": Format(".png", _images, _try_image),
    "own_npz": Format(".npz", _own_npz, _try_own_npz, (damage_zip, damage_bytes)),
}
