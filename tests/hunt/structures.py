"""Damage behind checksums, lengths and parsers: members of zip files, fields of ONNX messages, safetensors' headers."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from typing import Any

import numpy as np

from tests.hunt.damage import damage_bytes, damage_json


def member(name: str, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    """A zip's member of 1980, not of now."""
    info = zipfile.ZipInfo(name)
    info.compress_type = method
    return info


_HEADERS = [b"<f8", b">f4", b"<f2", b"|b1", b"|O  ", b"<c8", b"<U9", b"<M8", b"|V4", b"True", b"(0,)", b"(-1,)", b"()"]
_NAMES = ["x", "y", "../x", "/x", "x\x1b[2J", "x__input", "", "x/y", "x" * 300, "spikes__lif", "é", "X"]


def damage_zip(content: bytes, rng: np.random.Generator) -> bytes:
    """Change what the members of a zip hold, or their names; checksums fit again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    at = int(rng.integers(len(members)))
    info, data = members[at]
    match int(rng.integers(8)):
        case 0:
            del members[at]
        case 1:
            members.append((info, data))
        case 2:
            new = str(rng.choice(_NAMES))
            members[at] = (member(new + ".npy" * (rng.random() < 0.8), info.compress_type), data)
        case 3:
            members[at] = (info, members[int(rng.integers(len(members)))][1])
        case 4 | 5 if data[:6] == b"\x93NUMPY":
            members[at] = (info, _header(data, rng))
        case 6 if (changed := _json_in_array(data, rng)) is not None:
            members[at] = (info, changed)
        case _:
            members[at] = (info, damage_bytes(data, rng))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for each, inside in members:
            again = member(each.filename, each.compress_type)
            if again.filename not in archive.namelist():
                archive.writestr(again, inside)
    return stream.getvalue()


def _header(data: bytes, rng: np.random.Generator) -> bytes:
    """An array's header with another type, shape or word, of the same length."""
    end = 10 + int.from_bytes(data[8:10], "little")
    head = bytearray(data[10:end])
    for _ in range(int(rng.integers(1, 3))):
        word = _HEADERS[int(rng.integers(len(_HEADERS)))]
        digits = [i for i, c in enumerate(head) if chr(c).isdigit()]
        place = int(rng.choice(digits)) if digits and rng.random() < 0.6 else int(rng.integers(len(head)))
        if rng.random() < 0.5:
            head[place] = int(rng.choice(list(b"0123456789-,(")))
        elif (start := head.find(b"'<")) >= 0 and len(word) == 3:
            head[start + 1 : start + 4] = word
        else:
            head[place : place + len(word)] = word
    return data[:10] + bytes(head[: end - 10]).ljust(end - 10) + data[end:]


def _json_in_array(data: bytes, rng: np.random.Generator) -> bytes | None:
    """An array of bytes that is a JSON text, with values changed; None for any other."""
    if data[:6] != b"\x93NUMPY":
        return None
    try:
        text = np.lib.format.read_array(io.BytesIO(data)).tobytes()
        changed = damage_json(text, rng)
    except ValueError:
        return None
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.frombuffer(changed, np.uint8))
    return stream.getvalue()


def damage_gzip(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage what is compressed, and compress it again."""
    return gzip.compress(damage_bytes(gzip.decompress(content), rng), mtime=0)


def damage_tensors(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a safetensors file's header or the JSON in it; the length before it fits again."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    kept = header.get("__metadata__", {})
    if kept and rng.random() < 0.6:
        key = str(rng.choice(sorted(kept)))
        kept[key] = damage_json(kept[key].encode(), rng).decode()
        text = json.dumps(header).encode()
    else:
        text = damage_json(json.dumps(header).encode(), rng)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


_TEXTS = ["", "x", "a/b", "../x", "\x1b[2J", "n" * 300, "/etc/passwd", "Loop", "If", "é"]
_WHOLE = [0, 1, -1, 2, 7, 2**31 - 1, 2**20, -(2**31)]


def damage_onnx(content: bytes, rng: np.random.Generator) -> bytes:
    """Change fields of an ONNX model, or the JSON of its metadata."""
    import onnx

    model = onnx.load_model_from_string(content)
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.3 and model.metadata_props:
            entry = model.metadata_props[int(rng.integers(len(model.metadata_props)))]
            try:
                entry.value = damage_json(entry.value.encode(), rng).decode()
            except ValueError:
                entry.value = str(rng.choice(_TEXTS))
        else:
            _change_message(model, rng)
    return bytes(model.SerializeToString())


def _change_message(message: Any, rng: np.random.Generator) -> None:
    """Descend to a field at random; change, drop, double or swap what is there."""
    fields = [(field, value) for field, value in message.ListFields() if field.name != "metadata_props"]
    if not fields:
        return
    field, value = fields[int(rng.integers(len(fields)))]
    if hasattr(value, "append") or hasattr(value, "add"):
        _change_list(field, value, rng)
    elif field.message_type is not None:
        _change_message(value, rng)
    elif rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.enum_type is not None:  # which takes no number but those with a name
        setattr(message, field.name, int(rng.choice(sorted(field.enum_type.values_by_number))))
    else:
        setattr(message, field.name, _other(value, rng))


def _change_list(field: Any, values: Any, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(values)))
    chance = rng.random()
    if chance < 0.1:
        del values[at]
    elif field.message_type is None:
        values[at] = _other(values[at], rng)
    elif chance < 0.2:
        values.add().CopyFrom(values[at])
    elif chance < 0.3:
        values[at].CopyFrom(values[int(rng.integers(len(values)))])
    else:
        _change_message(values[at], rng)


def _other(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, bytes):
        return damage_bytes(value, rng)
    if isinstance(value, str):
        return str(rng.choice(_TEXTS))
    if isinstance(value, float):
        return float(rng.choice([0, -1, np.nan, np.inf, 1e38]))
    return int(rng.choice(_WHOLE)) if rng.random() < 0.7 else int(value) + 1
