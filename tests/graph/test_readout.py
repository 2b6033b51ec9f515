import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.graph.readout import Readout, readout_of

Y = np.array([[[1, 0, 4, 0]], [[0, 0, 0, 2]], [[0, 1, 0, 3]]], np.float32)  # [T=3, B=1, 4]


@pytest.mark.parametrize(
    ("readout", "scores", "decided"),
    [
        (Readout("sum"), [[1, 1, 4, 5]], 3),
        (Readout("mean"), np.float32([[1 / 3, 1 / 3, 4 / 3, 5 / 3]]), 3),
        (Readout("max"), [[1, 1, 4, 3]], 2),
        (Readout("last"), [[0, 1, 0, 3]], 3),
        (Readout("sum", population=2), [[1, 4.5]], 1),
        (Readout(), Y, 3),
    ],
    ids=str,
)
def test_scores_and_decision_by_hand(readout, scores, decided) -> None:
    np.testing.assert_array_equal(readout(Y), scores)
    assert readout.decide(Y).tolist() == [decided]


def test_it_goes_into_metadata_and_comes_back() -> None:
    for readout in (Readout("last", 10), Readout("mean"), Readout()):
        assert readout_of({"readout": readout.as_dict()}) == readout
    assert readout_of({}) == Readout()
    assert readout_of({"decision": "max"}) == Readout("max")
    assert readout_of({"decision": "mean"}) == Readout("mean")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"over_time": "median"}, "expected over time mean, sum, max, last, or None"),
        ({"population": 0}, "expected a population from 1 in whole numbers; found 0"),
        ({"votes": 3}, "expected readout keys over_time, population, then; found 'votes'"),
    ],
)
def test_wrong_declarations(wrong, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        readout_of({"readout": wrong})


def test_features_that_are_no_multiple_of_the_population() -> None:
    with pytest.raises(InputError, match="expected outputs in a multiple of 3, the readout's population; found 4"):
        Readout("mean", 3)(Y)
