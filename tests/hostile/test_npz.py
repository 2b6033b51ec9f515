"""npz files of strangers: what is not needed is not read, what is declared is checked, damage is one sentence."""

import io
import resource
import tracemalloc
import zipfile

import nir
import numpy as np
import pytest

from stl_deploy._util.files import read_inputs, read_npz, write_npz
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.verbs.artifacts import simulate
from stl_deploy.verbs.energy_of import energy
from tests.graph.nets import chain, lif


def _npy(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def _header(shape, descr="<f4"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": descr})
    return stream.getvalue()


def _zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_arrays_that_nobody_needs_are_not_read(tmp_path):
    path = tmp_path / "x.npz"
    zeros = bytes(2**30)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x.npy", _npy(np.ones((2, 3, 4), np.float32)))
        with archive.open("unused.npy", "w", force_zip64=True) as member:
            member.write(_header((2**28,)))
            member.write(zeros)
    del zeros
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x, labels = read_inputs(path)
    assert (x.shape, labels) == ((2, 3, 4), None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_more_than_a_file_of_its_size_can_hold_is_refused_unread(tmp_path):
    path = tmp_path / "x.npz"
    names = [f"x__{i}.npy" for i in range(5)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, _header((2**16, 2**10)))
    content = bytearray(path.read_bytes())
    size = 2**26 * 4 + 128
    with zipfile.ZipFile(path) as archive:
        stored = archive.infolist()[0].file_size
    for at in range(len(content) - 4):  # the directory's word for the size of each member, made a lie
        if content[at : at + 4] == stored.to_bytes(4, "little"):
            content[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"its arrays take 1\.2 GiB, over the 1\.0 GiB"):
        read_inputs(path)


def test_what_no_array_of_ours_is_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    _zip(path, {"x.npy": _header((2**40, 3))})
    with pytest.raises(InputError, match=r"x\.npz: array 'x' declares shape \(1099511627776, 3\), over 8 GiB"):
        read_inputs(path)
    monkeypatch.setattr("stl_deploy._util.npz._MAX_MEMBERS", 2)
    _zip(path, {f"x{i}.npy": b"" for i in range(3)})
    with pytest.raises(InputError, match=r"x\.npz: expected up to 2 arrays; found 3"):
        read_npz(path)


def test_damaged_compression_of_every_kind_is_a_sentence(tmp_path):
    path = tmp_path / "x.npz"
    noise = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_STORED):
        _zip(path, {"x.npy": _npy(noise)}, method)
        whole, refused = path.read_bytes(), 0
        for at in range(40, len(whole) - 100, 7):
            content = bytearray(whole)
            content[at] ^= 0x55
            path.write_bytes(content)
            try:
                found, _ = read_inputs(path)
                assert (found == noise).all()  # a date, say
            except InputError:
                refused += 1
        assert refused > 40


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2,",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }",
        b"{'descr': ('<f4', 3), 'fortran_order': False, 'shape': (1, 2), }",
        b"{'descr': [('a', '<f4'), ('a', '<f4')], 'fortran_order': False, 'shape': (1, 2), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1e400, 2), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 2), }",
        b"{'descr': '<V0', 'fortran_order': False, 'shape': (99999999999999999999, 2), }",
        b"((((((((((" * 100,
        b"'''",
        b"\\",
    ],
)
def test_headers_that_numpy_chokes_on_are_sentences(tmp_path, header):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    _zip(tmp_path / "x.npz", {"x.npy": content})
    with pytest.raises(InputError):
        read_inputs(tmp_path / "x.npz")


def test_a_name_twice_is_refused(tmp_path):
    _zip(tmp_path / "x.npz", {"x.npy": _npy(np.ones((1, 1))), "x": _npy(np.zeros((1, 1)))})
    with pytest.raises(InputError, match="expected each array once; found two of one name"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["../../../evil", "/etc/evil", "a\\b", "a\x1b[2J", "", "n" * 256])
def test_no_name_becomes_a_path_inside_an_npz(tmp_path, name):
    with pytest.raises(InputError, match="cannot be the name of an array"):
        write_npz(tmp_path / "y.npz", {name: np.zeros(1)})
    assert not list(tmp_path.iterdir())


def test_values_beyond_float32_are_refused_without_a_warning(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.full((1, 1, 2), 1e300))
    with pytest.raises(InputError, match="expected finite numbers; found NaN or infinity"):
        read_inputs(tmp_path / "x.npz")


def test_numbers_that_float32_does_not_hold_are_told(tmp_path):
    x = np.array([0.1, 0.5, 1 / 3]).reshape(1, 1, 3)
    np.savez(tmp_path / "x.npz", x=x)
    told = r"'x': float64 rounded to float32, .*: 2 of 3 values move, by at most 9.9e-09"
    with pytest.warns(UserWarning, match=told):
        found, _ = read_inputs(tmp_path / "x.npz")
    assert np.array_equal(found, x.astype(np.float32))
    np.savez(tmp_path / "x.npz", x=np.array([0.25, 1e-3], np.float16).astype(np.float64).reshape(1, 1, 2))
    read_inputs(tmp_path / "x.npz")  # nothing moves, nothing is said
    np.savez(tmp_path / "x.npz", x=np.array([[[2**24, -(2**24)]]]))
    read_inputs(tmp_path / "x.npz")
    for number in (2**24 + 1, -(2**63), 2**63 - 1):
        np.savez(tmp_path / "x.npz", x=np.array([[[0, number]]]))
        with pytest.raises(InputError, match=rf"'x': expected integers up to 2\^24, .*; found {number}$"):
            read_inputs(tmp_path / "x.npz")


@pytest.mark.parametrize("verb", ["simulate", "energy"])
def test_values_of_a_byte_become_floats_a_few_samples_at_a_time(tmp_path, verb):
    rng = np.random.default_rng(0)
    x = np.zeros((100, 1000, 256), bool)
    x[::9, :, ::50] = True
    write_npz(tmp_path / "x.npz", {"x": x})
    graph = chain((256,), nir.Linear(rng.normal(size=(4, 256)).astype(np.float32)), lif((4,)))
    write_nir(graph, tmp_path / "net.nir")
    options = {"input_file": tmp_path / "x.npz", "dialect": "spec"}
    tracemalloc.start()
    try:
        if verb == "simulate":
            simulate(tmp_path / "net.nir", output=tmp_path / "y.npz", backend="reference", **options)
        else:
            energy(tmp_path / "net.nir", **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert x.nbytes < peak < 4 * x.nbytes  # with all of it in float32: five times
