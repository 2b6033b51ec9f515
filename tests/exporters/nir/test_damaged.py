"""Damage that HDF5's own library does not survive (thousands more: ``make hunt``)."""

import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import read_nir
from tests.hunt.net_formats import golden_nir


def test_a_file_on_which_hdf5_loops_is_refused(tmp_path):
    # Its heap of texts starts with free space of size 0; the library steps over it for ever.
    path = tmp_path / "loops.nir"
    content = bytearray(golden_nir()[0])
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged, truncated or not a NIR file \(it takes over 0\.5 s to read\)"):
        read_nir(path)
    assert read_after(tmp_path)


def read_after(folder):
    """The next file is read as if nothing had been."""
    path = folder / "sound.nir"
    path.write_bytes(golden_nir()[0])
    return read_nir(path).nodes
