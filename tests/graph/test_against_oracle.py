"""The lowered and vectorised run against a slow scalar reading of the same graph: the same bits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.graph.oracle import dialects, nets, simulate

dyadic = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 1.5, 3.0])


@examples(100)
@given(data=st.data(), net=nets(), dialect=dialects, steps=st.integers(1, 6))
def test_every_node_agrees_bit_for_bit(data, net, dialect, steps):
    x = np.array([[data.draw(dyadic) for _ in range(net.size["input"])] for _ in range(steps)], np.float32)
    program = lower(net, dialect)
    expected = simulate(net, dialect, x.tolist())
    found = run(program, np.stack([x, x[::-1]], axis=1), record=list(net.nodes)).recorded
    for name in net.nodes:
        np.testing.assert_array_equal(found[name][:, 0], np.array(expected[name], np.float32), err_msg=name)
