"""Parts and one run: the same counts."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.energy import ActivityCounter, count_stream
from stl_deploy.energy.counts.coding import resolve_coding
from stl_deploy.energy.counts.count import Part
from stl_deploy.errors import InputError
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.energy.nets import inputs, lif, program, programs, start
from tests.energy.peers.nets import arrays, net


@given(st.data())
@examples(40)
def test_parts_count_as_one_run_does(data: st.DataObject) -> None:
    program = data.draw(programs())
    x = data.draw(inputs(program))
    labels = np.arange(x.shape[1]) % 2
    whole = ActivityCounter(program, "analog", labels)
    run(program, x, observe=whole, chunk=data.draw(st.sampled_from([1, 2])))
    parts = [(x[:, b : b + 1], labels[b : b + 1]) for b in range(x.shape[1])]
    streamed = count_stream(program, parts, "analog")
    assert streamed.counts() == whole.counts()
    assert streamed.samples.as_dict() == whole.samples.as_dict()


def test_parts_are_read_as_needed() -> None:
    program, x = net("spikes"), arrays("spikes")["x"]
    taken = 0

    def parts() -> Iterator[Part]:
        nonlocal taken
        for number in range(7):
            taken += 1
            yield x * (number % 2), np.full(3, number)

    counter = count_stream(program, parts(), "spikes")
    assert taken == 7
    assert counter.counts().batch == 21
    assert sorted(counter.samples.by_class) == [*range(7)]


def test_what_cannot_be_streamed() -> None:
    program, x = net("spikes"), arrays("spikes")["x"]
    with pytest.raises(InputError, match="no samples"):
        count_stream(program, [], "spikes")
    with pytest.raises(InputError, match="expected activity of one T for all, 4 steps as before; found 2"):
        count_stream(program, [(x, None), (x[:2], None)], "spikes")


def test_the_coding_is_found_a_few_samples_at_a_time() -> None:
    still = program(start((100,)), lif("n", "in", (100,)))
    x = np.full((4, 2000, 100), 0.5, np.float32)
    tracemalloc.start()
    try:
        assert resolve_coding(still, [x], None).value == "analog"
        assert resolve_coding(still, [x], "analog").value == "analog"
        assert tracemalloc.get_traced_memory()[1] < x.nbytes / 8
    finally:
        tracemalloc.stop()
