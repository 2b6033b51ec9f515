"""Safetensors files with a JSON object beside their tensors: one file, whole or absent, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stl_deploy._util.files import MAX_ARRAY_BYTES, plain_file, whole_file
from stl_deploy._util.untrusted import one_line
from stl_deploy.errors import InputError

_KEY = "stl_deploy"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and the JSON object ``about`` (no NaN), whole or not at all; raises InputError if it cannot."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        try:
            save_file(plain, temporary, metadata={_KEY: json.dumps(about, allow_nan=False)})
        except SafetensorError as error:  # whatever the disk refuses, too
            raise InputError(f"cannot write {path}: {one_line(error)}") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors (on the CPU) and the JSON object; raise InputError for a missing, damaged or foreign file."""
    plain_file(path, "a safetensors file", MAX_ARRAY_BYTES)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            about = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = None if about is None else json.loads(about)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: truncated, damaged or not a safetensors file ({one_line(error)})") from None
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: a safetensors file that stl-deploy did not write")
    return tensors, metadata


def check_fit(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise InputError if ``found`` lacks the names, shapes and types of ``expected``, or holds NaN."""
    for name in (*expected, *found):
        if name not in found:
            raise InputError(f"{path}: no tensor '{name}'; the file is of another architecture than the configuration")
        if name not in expected:
            raise InputError(f"{path}: unknown tensor '{name}'; the file is of another architecture")
        have, want = found[name], expected[name]
        if have.shape != want.shape or have.dtype != want.dtype:
            raise InputError(
                f"{path}: tensor '{name}' is {have.dtype} {list(have.shape)}, the configuration's network has "
                f"{want.dtype} {list(want.shape)}; the file is of another architecture"
            )
        if have.is_floating_point() and not bool(have.isfinite().all()):
            raise InputError(f"{path}: tensor '{name}': expected finite numbers; found NaN or infinity")
