"""The look through a stranger's HDF5 file, called right here instead of in the process that files are read in."""

import h5py
import numpy as np
import pytest
from h5py import h5g

from stl_deploy._util.hdf5 import scan
from stl_deploy.errors import InputError


def _written(path, edit, **options):
    with h5py.File(path, "w", **options) as file:
        edit(file)
    return path


def _look(path):
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "progress", lambda: calls.append(1))
        found, (content,) = scan.look_through(path, "HDF5", lists=True)
    return found, content.tobytes(), len(calls)


def _data(*arguments, **options):
    return lambda file: file.create_dataset("a/b", *arguments, **options)


def _attributes(*values):
    def edit(file):
        group = file.create_group("a")
        for index, value in enumerate(values):
            group.attrs[str(index)] = value

    return edit


def _members(file):
    for index in range(scan.MAX_MEMBERS + 1):
        file[str(index)] = h5py.SoftLink("/nowhere")


def _twice(file):
    file["a"] = np.zeros(3)
    file["b"] = file["a"]


def _virtual(file):
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "a", (3,))
    file.create_virtual_dataset("a", layout)


LISTS = h5py.vlen_dtype(np.float32)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (_members, r"'/': expected up to 25000 members; found 25001$"),
        (lambda file: file.create_group("/a" * 101), r"is over 100 levels deep$"),
        (lambda file: h5g.create(file.id, b"\xff"), r"a name in '/' is not UTF-8 text$"),
        (_attributes(*range(101)), r"'/a': expected up to 100 attributes; found 101$"),
        (_attributes(np.zeros(2**16 + 1, np.int8)), r"'/a' has an attribute of 65537 bytes$"),
        (lambda file: file.update(a=h5py.SoftLink("/b")), r"'/a': .* found a link to elsewhere$"),
        (_twice, r"'/b': expected each object in one place; found it in '/a', too$"),
        (_data(data=h5py.Empty(np.float32)), r"'/a/b': expected numbers or text; found float32 None$"),
        (_data((2,), [("x", np.float32)]), r"'/a/b': expected numbers or text; found \[\('x', '<f4'\)\] \(2,\)$"),
        (_data((1,) * 9, np.float32), r"expected numbers or text; found float32 \(1, 1, 1, 1, 1, 1, 1, 1, 1\)$"),
        (_data((2, 2), LISTS), r"'/a/b': expected a row of up to 1000000 lists; found shape \[2, 2\]$"),
        (_data((200_001,), "S1", chunks=(1000,)), r"expected up to 200000 strings; found 200001 declared$"),
        (_data((1,), f"S{2**26 + 1}", chunks=(1,)), r"'/a/b' and others hold over 64 MiB of text$"),
        (_virtual, r"'/a': expected a file that holds its data itself; found data in another file$"),
        (_data((4,), np.int32, scaleoffset=0), r"'/a/b': expected compression by gzip or lzf; found filter 6$"),
        (
            _data((2**40,), np.int8, chunks=(1024,)),
            r"'/a/b' declares \[1099511627776\] int8: 1,024 GiB, with all the others over the 256 MiB that ",
        ),
    ],
)
def test_what_is_refused_is_named(tmp_path, edit, sentence):
    with pytest.raises(InputError, match=r"^.*a\.h5: .*" + sentence):
        _look(_written(tmp_path / "a.h5", edit, libver="latest"))


def test_objects_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_MAX_OBJECTS", 3)
    path = _written(tmp_path / "a.h5", lambda file: [file.create_group(f"{name}/b") for name in "ac"])
    with pytest.raises(InputError, match=r"a\.h5: holds more than 3 objects$"):
        _look(path)


def test_one_list_named_by_many_rows_counts_as_often(tmp_path):
    """The rows of a small file may all refer to one place in it: 160 times 2 MiB in a file of 2 MiB."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("a", (160,), LISTS)
        data[0] = np.zeros(2**19, np.float32)
        start, reference = data.id.get_offset(), 16
    content = bytearray(path.read_bytes())
    content[start : start + 160 * reference] = content[start : start + reference] * 160
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"'/a' takes .*, with all the others over the 256 MiB that a file of this"):
        _look(path)


def test_large_arrays_lists_and_attributes_are_looked_up_only(tmp_path):
    """What is handed over are small arrays, after each other at multiples of 8; attributes of any kind are passed."""

    def edit(file):
        file["small"] = np.arange(3, dtype=np.int8)
        file["to a float"] = np.float64(0.5)
        file["text"] = "words"
        file["medium"] = np.zeros(2**15)
        file.create_dataset("large", (2**19,), np.float32, chunks=(2**17,)).write_direct(np.ones(2**19, np.float32))
        file.create_dataset("lists", (2,), LISTS)[1] = np.ones(2, np.float32)
        file.attrs["date"] = np.zeros(2, [("day", np.int8)])
        file.attrs.create("reference", file.ref, dtype=h5py.ref_dtype)
        file["type"] = np.dtype(np.float32)

    found, content, calls = _look(_written(tmp_path / "a.h5", edit))
    assert found == {
        "small": ["|i1", (3,), 0],
        "to a float": ["<f8", (), 8],
        "text": ["text", (), "words"],
        "medium": ["<f8", (2**15,), None],
        "large": ["<f4", (2**19,), None],
        "lists": ["lists of <f4", (2,), None],
    }
    assert bytes(content) == bytes([0, 1, 2]) + bytes(5) + np.float64(0.5).tobytes()
    assert calls == 1 + 7 + 2 + 4 + 1  # the file, its members, two attributes, four chunks, one part of the lists
