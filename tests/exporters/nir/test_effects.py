"""Options that matter are found by running, options that do not are 0."""

import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.check import effects
from stl_deploy.exporters.nir.dialect import Dialect
from tests.graph.nets import a, bare, chain, iff, lif, steps


def changed(net, x, dialect=None):
    return {(e.option, e.instead): e.differ for e in effects(net, x, dialect) if e.differ}


def test_a_tie_makes_the_comparison_matter_and_nothing_else():
    net = chain([1], iff((1,), theta=1))
    assert changed(net, steps([1], [0]), Dialect()) == {
        ("compare", "ge"): 1,
        ("spikes_per_step", "many"): 1,
        ("integrate", "r"): 1,
        ("dt", 1e-3): 1,
    }


def test_what_is_over_the_threshold_makes_the_reset_matter():
    # 1.25 fires in the first step; 0.25 are left only if the threshold is subtracted, and 0.875 more make another.
    net = chain([1], iff((1,), theta=1))
    found = changed(net, steps([1.25], [0.875]))
    assert found[("reset", "subtract")] == found[("reset", "subtract_delayed")] == 1
    assert ("compare", "ge") not in found
    assert ("leak", "exp") not in found


def test_worst_first_and_all_listed():
    found = effects(chain([2], lif((2,), r=2)), np.ones((5, 3, 2)))
    assert [e.differ or 0 for e in found] == sorted((e.differ or 0 for e in found), reverse=True)
    assert {e.option for e in found} == set(Dialect().as_dict())
    assert all(e.compared == 30 for e in found)
    assert found[0].as_dict()["assumed"] is not None


def test_a_choice_that_cannot_run_says_why():
    import nir

    net = chain([1], nir.Delay(a(3e-4)), bare(nir.I, r=a(1)))
    (found,) = (e for e in effects(net, steps([1])) if e.instead == pytest.approx(1e-3))
    assert found.differ is None
    assert "expected a delay of whole time steps" in found.reason


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="input 'input': expected shape"):
        effects(chain([1], iff((1,))), np.ones((2, 2)))
