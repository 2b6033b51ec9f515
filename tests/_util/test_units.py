"""Numbers with what they count."""

import pytest

from stl_deploy._util.hdf5.scan import _size
from stl_deploy._util.units import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 samples"), (1, "1 sample"), (1200, "1,200 samples")])
def test_what_is_counted_is_singular_for_one(number, said):
    assert counted(number, "sample") == said


@pytest.mark.parametrize(("count", "said"), [(2**19, "0.5 MiB"), (2**30, "1 GiB"), (2**40, "1,024 GiB")])
def test_sizes_have_no_exponent(count, said):
    assert _size(count) == said
