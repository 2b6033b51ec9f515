"""The recordings of real Lava: one npz per group, with each case's network file, input and spikes of every layer.

The many are packed together (.npz.xz): network files are much alike.
"""

from __future__ import annotations

import io
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.netx.file import read_netx
from stl_deploy.exporters.netx.layers import NetxFile

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Golden:
    name: str
    net: NetxFile
    x: NDArray[Any]
    spikes: dict[str, NDArray[np.uint8]]


def pack(net_file: bytes, x: NDArray[Any], spikes: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"net": np.frombuffer(net_file, np.uint8), "x": x.astype(np.int16)}
    return arrays | {key: np.packbits(values) for key, values in spikes.items()}


def goldens(scratch: Path) -> Iterator[Golden]:
    for path in sorted(FOLDER.iterdir()):
        file = io.BytesIO(lzma.decompress(path.read_bytes())) if path.suffix == ".xz" else path
        with np.load(file, allow_pickle=False) as arrays:
            for name in sorted({key.split("/")[0] for key in arrays.files}):
                yield _unpack(
                    name,
                    {key.split("/")[1]: arrays[key] for key in arrays.files if key.startswith(f"{name}/")},
                    scratch,
                )


def _unpack(name: str, arrays: dict[str, NDArray[Any]], scratch: Path) -> Golden:
    file = scratch / f"{name}.net"
    file.write_bytes(arrays["net"].tobytes())
    net, x = read_netx(file), arrays["x"]
    spikes = {}
    for key, layer in net.spiking:
        shape = (*x.shape[:2], *layer.shape)
        spikes[key] = np.unpackbits(arrays[key], count=int(np.prod(shape))).reshape(shape)
    return Golden(name, net, x, spikes)
