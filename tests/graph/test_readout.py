import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.graph.readout import Readout, readout_of, share_right
from stl_deploy.graph.run import Result

Y = np.array([[[1, 0, 4, 0]], [[0, 0, 0, 2]], [[0, 1, 0, 3]]], np.float32)  # [T=3, B=1, 4]


@pytest.mark.parametrize(
    ("readout", "scores", "decided"),
    [
        (Readout("sum"), [[1, 1, 4, 5]], 3),
        (Readout("mean"), np.float32([[1 / 3, 1 / 3, 4 / 3, 5 / 3]]), 3),
        (Readout("max"), [[1, 1, 4, 3]], 2),
        (Readout("last"), [[0, 1, 0, 3]], 3),
        (Readout("first"), np.float32([[3.5, 1 + 1 / 2, 3.8, 2 + 2 / 3]]), 2),
        (Readout("first", population=2), np.float32([[3 + 1 / 3, 3 + 2 / 3]]), 1),
        (Readout("sum", population=2), [[1, 4.5]], 1),
        (Readout(), Y, 3),
    ],
    ids=str,
)
def test_scores_and_decision_by_hand(readout, scores, decided) -> None:
    np.testing.assert_array_equal(readout(Y), scores)
    assert readout.decide(Y).tolist() == [decided]


@pytest.mark.parametrize("readout", [Readout(), Readout(start=1), Readout(start=-1)], ids=str)
def test_labels_of_each_step_are_held_against_the_steps_that_count(readout) -> None:
    labels = np.array([[2, 3, 3]])  # the greatest of each step of Y
    assert share_right(Result({"y": Y}, {}), labels, readout) == 1


def test_it_goes_into_metadata_and_comes_back() -> None:
    for readout in (Readout("last", 10), Readout("mean"), Readout()):
        assert readout_of({"readout": readout.as_dict()}) == readout
    assert readout_of({}) == Readout()
    assert readout_of({"decision": "max"}) == Readout("max")
    assert readout_of({"decision": "mean"}) == Readout("mean")
    assert readout_of({"decision": "first"}) == Readout("first")


def test_who_never_spikes_is_not_first() -> None:
    late = np.array([[[0, -1, 0]], [[0, -3, 0]], [[0, 0, 0.25]]], np.float32)
    assert Readout("first")(late).tolist() == [[0, 0, np.float32(1.2)]]
    assert Readout("first").decide(late).tolist() == [2]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"over_time": "median"}, "expected over time mean, sum, max, last, first, or None"),
        ({"then": "tanh"}, "readout: expected then softmax, log_softmax, or None; found 'tanh'"),
        ({"population": 0}, "expected an integer population from 1; found 0"),
        ({"votes": 3}, "expected readout keys over_time, population, then, start, each; found 'votes'"),
    ],
)
def test_wrong_declarations(wrong, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        readout_of({"readout": wrong})


def test_features_that_are_no_multiple_of_the_population() -> None:
    with pytest.raises(
        InputError, match="expected outputs of a multiple of 3 features, the readout's population; found 4"
    ):
        Readout("mean", 3)(Y)


def test_the_softmax_of_each_step_is_summed() -> None:
    y = np.log([[[1.0, 3.0]], [[1.0, 1.0]]])
    np.testing.assert_allclose(Readout("sum", each="softmax")(y), [[0.75, 1.25]], rtol=1e-6)
    np.testing.assert_allclose(Readout("mean", each="log_softmax")(y), [np.log([0.125, 0.375]) / 2], rtol=1e-6)
    assert Readout("sum", each="softmax").decide(y).tolist() == [1]
    assert str(Readout("sum", each="softmax")) == "sum over time of each step's softmax"
    assert Readout(**Readout("sum", each="softmax").as_dict()) == Readout("sum", each="softmax")
