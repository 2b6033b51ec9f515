"""Write a model whole, with large weights in a file beside it."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from stl_deploy._util.files import whole_file
from stl_deploy.exporters.onnx.scope import Array

MAX_MODEL_BYTES = 2**31 - 2**20
"""Protobuf messages end at 2 GiB: weights of more than this go beside the model."""
_ALIGNMENT = 4096
_INLINE_BYTES = 1024
_DIGITS = 12


def write_model(model: ModelProto, weights: Mapping[str, Array], path: Path, external_above: int) -> tuple[Path, ...]:
    """Add ``weights`` to ``model``, check it, write it whole; return the files written.

    Weights of more than ``external_above`` bytes together go to one file beside it, named by its digest, so
    that a model never meets another's weights; the file of an earlier model of this name is removed.
    Raises InputError if the folder cannot be written; onnx's ValidationError or InferenceError for a wrong graph.
    """
    if sum(array.nbytes for array in weights.values()) <= external_above:
        _write_checked(model, path, weights)
        return (path,)
    large = {name: array for name, array in weights.items() if array.nbytes > _INLINE_BYTES}
    digest = hashlib.sha256()
    for chunk in _aligned(large):
        digest.update(chunk)
    data = path.with_name(f"{path.name}.{digest.hexdigest()[:_DIGITS]}.data")
    with whole_file(data) as temporary, temporary.open("wb") as stream:
        stream.writelines(_aligned(large))
    offset = 0
    for name, array in large.items():
        model.graph.initializer.append(_elsewhere(name, array, data.name, offset))
        offset += array.nbytes + -array.nbytes % _ALIGNMENT
    try:
        _write_checked(model, path, {name: array for name, array in weights.items() if name not in large})
    except BaseException:
        data.unlink()
        raise
    for other in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * _DIGITS}.data"):
        if other != data:
            other.unlink()
    return path, data


def _write_checked(model: ModelProto, path: Path, weights: Mapping[str, Array]) -> None:
    with whole_file(path) as temporary:
        with temporary.open("wb") as stream:
            stream.writelines(_message(model, weights))
        named = str(temporary).isprintable()  # onnx takes names in UTF-8 alone
        onnx.checker.check_model(str(temporary) if named else temporary.read_bytes(), full_check=True)


def _message(model: ModelProto, weights: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of ``model`` with ``weights`` in its graph, piece by piece.

    Protobuf's own writer holds the weights three times over. A message is its fields one after another, and one that
    holds another gives that one's length, so weights can be written straight from their arrays.
    """
    frame = ModelProto()
    frame.CopyFrom(model)
    frame.ClearField("graph")
    tensors = []
    for name, array in weights.items():
        head = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        start = head.SerializeToString() + _key(TensorProto.RAW_DATA_FIELD_NUMBER, array.nbytes)
        tensors.append((_key(GraphProto.INITIALIZER_FIELD_NUMBER, len(start) + array.nbytes) + start, array))
    graph = model.graph.SerializeToString()
    length = len(graph) + sum(len(start) + array.nbytes for start, array in tensors)
    yield frame.SerializeToString() + _key(ModelProto.GRAPH_FIELD_NUMBER, length) + graph
    for start, array in tensors:
        yield start
        yield _bytes(array)


def _key(field: int, length: int) -> bytes:
    """Return the prefix of a field of ``length`` bytes: number and wire type, then the length, in 7-bit groups."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).data.cast("B")


def _aligned(weights: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the arrays one after another, each padded for memory mapping."""
    for array in weights.values():
        yield _bytes(array)
        yield bytes(-array.nbytes % _ALIGNMENT)


def _elsewhere(name: str, array: Array, location: str, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    for key, value in {"location": location, "offset": offset, "length": array.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
