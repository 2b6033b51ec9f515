"""A short run of ``python -m tests.fuzz_nir``, which tries 10,000 and more."""

import pytest

from stl_deploy.errors import InputError
from stl_deploy.graph.io.nir_file import read_nir
from tests.fuzz_nir import mutant, originals, try_mutants


def test_damaged_files_are_answered():
    outcomes = try_mutants(10_000, 10_200, seed=0)
    assert sum(outcomes.values()) == 200
    assert len(outcomes) > 5


def test_a_file_on_which_hdf5_loops_is_refused(tmp_path):
    # Its heap of texts starts with free space of size 0; the library steps over it for ever.
    path = tmp_path / "loops.nir"
    content = bytearray(originals()[0])
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged, truncated or not a NIR file \(HDF5 loops on it\)"):
        read_nir(path)
    assert read_after(tmp_path)


def read_after(folder):
    """The next file is read as if nothing had been."""
    path = folder / "sound.nir"
    path.write_bytes(originals()[0])
    return read_nir(path).nodes


def test_the_same_number_gives_the_same_mutant(tmp_path):
    contents = originals()
    for number in (1, 3):
        mutant(number, 0, contents, tmp_path / "a")
        mutant(number, 0, contents, tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
