"""Read and write lava-dl's network exchange files (``.net``, HDF5) through h5py alone.

Inside the file: weights in torch order, per-neuron conv thresholds and biases in Lava's
``(W, H, C)`` order, everything else as `stl_deploy.exporters.netx.layers` has it. The NIR name of
a layer is kept as the HDF5 attribute ``node`` and the grid of real input as ``fraction_bits``, which netx does not
look at. Untrusted files are read key by key, after `open_hdf5` has checked every link and size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.hdf5.guard import open_hdf5, whole_hdf5
from stl_deploy._util.npz import is_plain_name
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.netx.layers import (
    MAX_DELAY,
    MAX_MIXED_WEIGHT,
    MIN_WEIGHT,
    NO_NEURON,
    ConvLayer,
    DenseLayer,
    FlattenLayer,
    InputLayer,
    Layer,
    NetxFile,
    layer_key,
    shape_behind,
)
from stl_deploy.graph.exact import MANTISSA_BITS
from stl_deploy.integers.net import IntegerNeuron, Ints, Pair, Shape

_FRACTION_BITS = "fraction_bits"
NETX_CANNOT = ("pool", "average", "convT", "unpool", "concat")
"""Layer types that the format names and netx 0.6 raises NotImplementedError for."""

_FOREIGN_NEURONS = {"SDNN": " (sigma-delta)", "RF": " (resonate-and-fire)"}
NOT_HERE = {
    "dense_rec": "recurrent dense layers run in netx, but not here; run the file in Lava",
    "dense_comp": "complex dense layers run in netx, but not here; run the file in Lava",
}
"""Layer types that netx runs and we do not."""


def write_netx(net: NetxFile, path: Path) -> None:
    """Write ``net`` for ``lava.lib.dl.netx``, whole or not at all."""
    with whole_hdf5(path) as file:
        for index, layer in enumerate(net.layers):
            _write_layer(file.create_group(f"layer/{index}"), layer)


def _write_layer(group: Any, layer: Layer) -> None:
    if isinstance(layer, FlattenLayer):
        group["type"] = np.bytes_("flatten")
        return
    group["shape"] = np.array(layer.shape, np.int64)
    if isinstance(layer, InputLayer):
        group["type"] = np.bytes_("input")
        if layer.fraction_bits is not None:
            group.attrs[_FRACTION_BITS] = layer.fraction_bits
        return
    group["type"] = np.bytes_("dense" if isinstance(layer, DenseLayer) else "conv")
    group.create_dataset("weight", data=layer.weight.astype(np.int32), compression="gzip", shuffle=True)
    if layer.bias is not None:
        group["bias"] = to_lava(layer.bias).astype(np.int32)
    if isinstance(layer, ConvLayer):
        for key in ("stride", "padding", "dilation"):
            group[key] = np.array(getattr(layer, key), np.int64)
        group["groups"] = layer.groups
    elif layer.delay is not None:
        group["delay"] = layer.delay.astype(np.int32)
    neuron = layer.neuron
    group["neuron/type"] = np.bytes_("CUBA")
    group["neuron/iDecay"] = neuron.i_decay
    group["neuron/vDecay"] = neuron.v_decay
    group["neuron/vThMant"] = to_lava(neuron.threshold).astype(np.int32)
    if layer.node is not None:
        group.attrs["node"] = layer.node


def to_lava(values: NDArray[Any]) -> NDArray[Any]:
    """Convert (C, H, W) to (W, H, C), and back; arrays of other ranks pass."""
    return values.transpose(2, 1, 0) if values.ndim == 3 else values


def read_netx(path: Path) -> NetxFile:
    """Read an untrusted netx file.

    Raises InputError naming the layer and key for what is missing, not integers, too large,
    linked to elsewhere or of a kind netx cannot run; UnsupportedError for values netx cannot hold.
    """
    with open_layers(path) as records:
        layers: list[Layer] = []
        shape: Shape = ()
        run = _run_by_netx(records)
        notes = [
            f"{record.name} ('{record.text('type')}') is not run by netx and is left out"
            for record in records[len(run) :]
        ]
        for index, record in enumerate(run):
            layer = _read_layer(record, index, shape)
            layers.append(layer)
            shape = shape_behind(layer, shape)
    notes += [
        f"{layer_key(index)} has no neurons; netx gives it neurons that never fire, so its spikes are all 0"
        for index, layer in enumerate(layers)
        if isinstance(layer, DenseLayer) and layer.neuron is NO_NEURON
    ]
    try:
        return NetxFile(tuple(layers), tuple(notes))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UnsupportedError as error:
        reason = f"{error.reason} (in {path})"
        raise UnsupportedError(reason, node=error.node, slug=error.slug, remedy=error.remedy) from None


def _run_by_netx(records: list[Record]) -> list[Record]:
    """Return the layers without the final averages, which lava-dl writes for voting and netx cannot run."""
    count = len(records)
    while count > 1 and records[count - 1].text("type") == "average":
        count -= 1
    return records[:count]


def _read_layer(record: Record, index: int, arriving: Shape) -> Layer:
    kind = record.text("type")
    if kind == "flatten":
        return FlattenLayer()
    if kind == "input":
        return _read_input(record)
    if index == 0 and kind != "dense":
        raise record.error("type", f"expected an 'input' layer with its shape first; found '{kind}'")
    if kind in NOT_HERE:
        raise record.error("type", f"'{kind}': {NOT_HERE[kind]}")
    if kind == "dense":
        return _read_dense(record)
    if kind == "conv":
        return _read_conv(record, arriving)
    known = " (netx names this type but cannot run it)" if kind in NETX_CANNOT else ""
    raise record.error("type", f"expected input, dense, conv or flatten; found '{kind}'{known}")


def _read_input(record: Record) -> InputLayer:
    shape = _shape(record)
    if not record.has("neuron"):
        return InputLayer(shape=shape, fraction_bits=record.whole_attribute(_FRACTION_BITS, 0, MANTISSA_BITS))
    scale, offset = (record.number(key) if record.has(key) else 0 for key in ("weight", "bias"))
    return InputLayer(shape=shape, neuron=_read_neuron(record), scale=scale or 64, offset=offset)


def _read_dense(record: Record) -> DenseLayer:
    weight = record.whole("weight")
    if weight.size and weight.min() < 0 < weight.max():
        weight = np.clip(weight, MIN_WEIGHT, MAX_MIXED_WEIGHT)  # as netx does
    out = int(np.prod(_shape(record)))
    if weight.ndim == 1 and out and weight.size % out == 0:
        weight = weight.reshape(out, -1)
    if weight.ndim != 2 or weight.shape[0] != out or weight.size == 0:
        raise record.error("weight", f"expected [{out}, in] for {out} outputs; found {list(weight.shape)}")
    return DenseLayer(
        weight=weight,
        bias=record.whole("bias") if record.has("bias") else None,
        delay=_delay(record, weight) if record.has("delay") else None,
        neuron=_read_neuron(record) if record.has("neuron") else NO_NEURON,
        node=record.attribute("node"),
    )


def _delay(record: Record, weight: Ints) -> Ints:
    """Spread one delay, one per output, or (if the counts differ) one per input over the synapses, as netx does.

    Where one is longer than it can hold, it clamps all of them.
    """
    delay = record.whole("delay")
    if delay.size and delay.max() > MAX_DELAY:
        delay = np.clip(delay, 0, MAX_DELAY)
    if delay.ndim == 1 and delay.shape[0] == weight.shape[0]:
        delay = delay[:, None]
    if delay.ndim > 2 or delay.shape not in [(), weight.shape, (weight.shape[0], 1), (weight.shape[1],)]:
        raise record.error("delay", f"shape {list(delay.shape)} does not fit weights {list(weight.shape)}")
    return np.broadcast_to(delay, weight.shape).copy()


def _read_conv(record: Record, arriving: Shape) -> ConvLayer:
    weight = record.whole("weight")
    if weight.ndim == 5 and weight.shape[4] == 1:
        weight = weight[..., 0]
    if weight.ndim != 4 or len(arriving) != 3:
        raise record.error(
            "weight",
            f"expected [C_out, C_in/groups, kh, kw]; found {list(weight.shape)} behind {list(arriving)}",
        )
    if record.has("delay"):
        raise record.error("delay", "netx ignores delays of conv layers; remove it")
    layer = ConvLayer(
        weight=weight,
        bias=to_lava(record.whole("bias")) if record.has("bias") else None,
        stride=_pair(record, "stride", 1),
        padding=_pair(record, "padding", 0),
        dilation=_pair(record, "dilation", 1),
        groups=record.number("groups"),
        input_shape=arriving,
        neuron=_read_neuron(record),
        node=record.attribute("node"),
    )
    if layer.shape != _shape(record):
        raise record.error("shape", f"{list(_shape(record))}, but the convolution gives {list(layer.shape)}")
    return layer


def _read_neuron(record: Record) -> IntegerNeuron:
    kind = record.text("neuron/type")
    if kind not in ("CUBA", "LOIHI"):
        known = _FOREIGN_NEURONS.get(kind.split("_")[0], "")
        raise record.error("neuron/type", f"expected CUBA (or LOIHI) neurons; found '{kind}'{known}")
    if record.has("neuron/messageBits"):
        raise record.error("neuron/messageBits", "netx 0.6 hangs on it; remove it (spikes are binary)")
    threshold = record.whole("neuron/vThMant")
    return IntegerNeuron(
        i_decay=record.number("neuron/iDecay"),
        v_decay=record.number("neuron/vDecay"),
        threshold=to_lava(threshold.reshape(()) if threshold.shape == (1,) else threshold),
    )


def _shape(record: Record) -> Shape:
    values = record.whole("shape").reshape(-1)
    if not 1 <= values.size <= 4 or values.min() < 1:
        raise record.error("shape", f"expected one to four numbers from 1; found {values.tolist()}")
    return tuple(int(value) for value in values)


def _pair(record: Record, key: str, least: int) -> Pair:
    values = record.whole(key).reshape(-1)
    if values.size not in (1, 2) or values.min() < least:
        raise record.error(key, f"expected one or two numbers from {least}; found {values[:4].tolist()}")
    return int(values[0]), int(values[-1])


MAX_LAYERS = 1000


class Record:
    """One layer's group. Errors name the file, the layer and the key."""

    def __init__(self, path: Path, group: Any, name: str) -> None:
        self.path, self._group, self.name = path, group, name

    def error(self, key: str, problem: str) -> InputError:
        """Return an InputError with file, layer and key."""
        return InputError(f"{self.path}: {self.name}/{key}: {problem}")

    def has(self, key: str) -> bool:
        """Return whether the key exists."""
        return _member(self._group, key) is not None

    def text(self, key: str) -> str:
        """Read a short ASCII string, plain or as the only entry of an array."""
        dataset = self._dataset(key)
        if dataset.dtype.kind not in "SO" or dataset.size != 1 or dataset.dtype.itemsize > 64:
            raise self.error(key, f"expected a short text; found {dataset.dtype} {list(dataset.shape)}")
        value = np.asarray(dataset[()]).reshape(-1)[0]
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
        return text[:40]

    def whole(self, key: str) -> Ints:
        """Read an array of integers within 32 bits (integral floats are accepted, as lava-dl writes them)."""
        dataset = self._dataset(key)
        if dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize > 8:
            raise self.error(key, f"expected integers; found {dataset.dtype}")
        values = np.asarray(dataset[()])
        if dataset.dtype.kind == "f" and not np.array_equal(values, np.trunc(values)):
            raise self.error(key, "holds fractions or NaN, which netx would cut off; round to integers first")
        if values.size and (values.max() >= 2**31 or values.min() < -(2**31)):
            raise self.error(key, "holds values beyond 32 bits")
        return values.astype(np.int32)

    def number(self, key: str) -> int:
        """Read one integer."""
        values = self.whole(key)
        if values.size != 1:
            raise self.error(key, f"expected one number; found shape {list(values.shape)}")
        return int(values.reshape(()))

    def attribute(self, key: str) -> str | None:
        """Read a short text attribute of the layer, or None."""
        value = self._group.attrs.get(key)
        if not isinstance(value, str):
            return None
        if not is_plain_name(value):
            raise self.error(key, f"expected a printable name of up to 255 characters, no path; found {value[:60]!a}")
        return value

    def whole_attribute(self, key: str, least: int, most: int) -> int | None:
        """Read an integer attribute of the layer from least to most, or None."""
        if key not in self._group.attrs:
            return None
        value = np.asarray(self._group.attrs[key])
        if value.dtype.kind not in "iu" or value.shape or not least <= value <= most:
            raise self.error(key, f"expected an integer from {least} to {most}; found {str(value)[:40]}")
        return int(value)

    def _dataset(self, key: str) -> Any:
        member = _member(self._group, key)
        if member is None:
            raise self.error(key, "missing; netx needs it")
        if not isinstance(member, h5py.Dataset) or member.shape is None:
            raise self.error(key, "is not an array of numbers or a text")
        return member


def _member(group: Any, key: str) -> Any:
    for part in key.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            return None
        group = group[part]
    return group


@contextmanager
def open_layers(path: Path) -> Iterator[list[Record]]:
    """Open the layers of a netx file in order; raise InputError for a missing, foreign, damaged or truncated file."""
    with open_hdf5(path, "a netx .net file") as (file, _):
        yield _layers(path, file)


def _layers(path: Path, file: Any) -> list[Record]:
    layers = _member(file, "layer")
    if not isinstance(layers, h5py.Group) or not 1 <= len(layers) <= MAX_LAYERS:
        raise InputError(f"{path}: expected a netx .net file; found no group 'layer' with 1 to {MAX_LAYERS} layers")
    records = []
    for index in range(len(layers)):
        group = _member(layers, str(index))
        if not isinstance(group, h5py.Group):
            raise InputError(f"{path}: layer/{index} is missing; layers are numbered from 0 without gaps")
        records.append(Record(path, group, f"layer/{index}"))
    return records
