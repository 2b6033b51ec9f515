"""Writing a model whole, with large weights in a file beside it."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from stl_deploy.exporters.onnx.scope import Array
from stl_deploy.files import whole_file

MAX_MODEL_BYTES = 2**31 - 2**20
"""Protobuf messages end at 2 GiB: weights of more than this go beside the model."""
_ALIGNMENT = 4096
_INLINE_BYTES = 1024
_DIGITS = 12


def write_model(model: ModelProto, weights: Mapping[str, Array], path: Path, external_above: int) -> tuple[Path, ...]:
    """Add ``weights`` to ``model``, check it, write it whole; returns the files written.

    Weights of more than ``external_above`` bytes together go to one file beside it, named by its digest, so
    that a model never meets another's weights; the file of an earlier model of this name is removed.
    Raises InputError if the folder cannot be written; onnx's ValidationError or InferenceError for a wrong graph.
    """
    if sum(array.nbytes for array in weights.values()) <= external_above:
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
        _write_checked(model, path)
        return (path,)
    large = {name: array for name, array in weights.items() if array.nbytes > _INLINE_BYTES}
    digest = hashlib.sha256()
    for chunk in _aligned(large):
        digest.update(chunk)
    data = path.with_name(f"{path.name}.{digest.hexdigest()[:_DIGITS]}.data")
    with whole_file(data) as temporary, temporary.open("wb") as stream:
        stream.writelines(_aligned(large))
    offset = 0
    for name, array in weights.items():
        if name not in large:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
            continue
        model.graph.initializer.append(_elsewhere(name, array, data.name, offset))
        offset += array.nbytes + -array.nbytes % _ALIGNMENT
    try:
        _write_checked(model, path)
    except BaseException:
        data.unlink()
        raise
    for other in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * _DIGITS}.data"):
        if other != data:
            other.unlink()
    return path, data


def _write_checked(model: ModelProto, path: Path) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(temporary), full_check=True)


def _aligned(weights: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """The bytes of the arrays one after another, each padded to the alignment that memory mapping wants."""
    for array in weights.values():
        yield np.ascontiguousarray(array).data.cast("B")
        yield bytes(-array.nbytes % _ALIGNMENT)


def _elsewhere(name: str, array: Array, location: str, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    for key, value in {"location": location, "offset": offset, "length": array.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
