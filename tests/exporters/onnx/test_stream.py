import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx import OnnxStream
from stl_deploy.exporters.onnx.target import OnnxSession
from stl_deploy.graph.program import Adaptation, Synapse
from stl_deploy.graph.run import Stream, run
from tests.exporters.onnx.nets import chain, digits, linear, neuron, spikes, write


def test_step_by_step_is_the_sequence(tmp_path):
    program = digits()
    stream = OnnxStream(write(program, tmp_path, "step"), record=["lif1"])
    x = spikes(5, 2, 1, 6, 6)
    expected = run(program, x, record=["lif1"])
    for t, now in enumerate(x):
        result = stream.step(now)
        np.testing.assert_array_equal(result.y, expected.y[t])
        np.testing.assert_array_equal(result.recorded["lif1"], expected.recorded["lif1"][t])


def test_reset_goes_back_to_rest(tmp_path):
    start = np.array([0.0, 4.0], np.float32)
    stream = OnnxStream(write(chain((2,), neuron(v_start=start, threshold=1.5)), tmp_path, "step"))
    nothing = np.zeros((1, 2))
    assert stream.step(nothing).y.tolist() == [[0, 1]]
    assert stream.step(nothing).y.tolist() == [[0, 0]]
    stream.reset()
    assert stream.step(np.zeros((3, 2))).y.tolist() == [[0, 1]] * 3


def test_another_batch_size_needs_a_reset(tmp_path):
    stream = OnnxStream(write(digits(), tmp_path, "step"))
    stream.step(spikes(2, 1, 6, 6))
    with pytest.raises(InputError, match=r"got 3 samples after 2; call reset\(\)"):
        stream.step(spikes(3, 1, 6, 6))


def test_results_stay_when_further_steps_are_taken(tmp_path):
    """States and outputs lie in buffers that every step writes anew; two streams of one file have their own."""
    program = digits()
    model = write(program, tmp_path, "step")
    one, other = OnnxStream(model, record=["lif1"]), OnnxStream(model)
    x = spikes(5, 2, 1, 6, 6)
    kept = []
    for now in x:
        kept.append(one.step(now))
        other.step(1 - now)
    expected = run(program, x, record=["lif1"])
    np.testing.assert_array_equal(np.stack([result.y for result in kept]), expected.y)
    np.testing.assert_array_equal(np.stack([result.recorded["lif1"] for result in kept]), expected.recorded["lif1"])


@pytest.fixture(scope="module")
def adapting(tmp_path_factory):
    """A network with potentials, currents and adaptation, and its step form."""
    fields = {"synapse": Synapse("euler", np.float32(0.5), None), "reset": "subtract"}
    fields["adaptation"] = Adaptation(np.float32(0.5), np.float32(0.25))
    weight = np.random.default_rng(0).integers(-2, 4, (8, 6)) / 4
    program = chain((6,), linear(weight), neuron("adapting", **fields))
    return program, write(program, tmp_path_factory.mktemp("adapting"), "step")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), max_size=20), st.integers(0, 2**16))
def test_streams_of_a_file_share_nothing_over_resets_and_sizes(adapting, moves, seed):
    """Two streams make the reference's spikes and states, and what they returned stays. A size of 0: a reset."""
    program, model = adapting
    rng = np.random.default_rng(seed)
    streams = [(OnnxStream(model), Stream(program)) for _ in range(2)]
    sizes, returned = [0, 0], []
    for which, size in moves:
        stream, reference = streams[which]
        if size != sizes[which]:
            stream.reset()
            reference.reset()
        sizes[which] = size
        if not size:
            continue
        x = rng.integers(0, 2, (size, 6)).astype(np.float32)
        returned.append((stream.step(x).y, reference.step(x).copy()))
        x[...] = 7
        states, wanted = stream._states[stream._steps % 2], reference._states["adapting"]
        for kind in ("v", "i", "a"):
            np.testing.assert_array_equal(states[f"state__adapting__{kind}"], getattr(wanted, kind))
    for made, expected in returned:
        np.testing.assert_array_equal(made, expected)


def test_buffers_stay_over_resets(tmp_path):
    stream = OnnxStream(write(digits(), tmp_path, "step"))
    first = stream.step(spikes(2, 1, 6, 6)).y
    buffers, bindings = stream._states, stream._bindings
    stream.reset()
    np.testing.assert_array_equal(stream.step(spikes(2, 1, 6, 6)).y, first)
    assert stream._states is buffers
    assert stream._bindings is bindings


def test_a_session_multiplies_integers_where_sums_are_exact():
    weight = np.full((3, 8), 0.25, np.float32)
    exact = chain((8,), neuron("in"), linear(weight), neuron("lif"), metadata={"input": {"fraction_bits": 0, "max": 1}})
    rough = chain((8,), neuron("in"), linear(weight * np.float32(1.1)), neuron("lif"))
    for program, precision in ((exact, "integer"), (rough, "float32")):
        session = OnnxSession(program)
        assert session._onnx._model.interface.precision == precision
        x = spikes(6, 4, 8)
        made = [session.step(now) for now in x]
        np.testing.assert_array_equal(np.stack(made), run(program, x).y)


def test_wrong_shape(tmp_path):
    stream = OnnxStream(write(digits(), tmp_path, "step"))
    with pytest.raises(InputError, match="input 'input': expected shape"):
        stream.step(spikes(2, 1, 5, 6))


def test_a_sequence_file_does_not_stream(tmp_path):
    with pytest.raises(InputError, match="takes whole sequences; to stream, export it in the step form"):
        OnnxStream(write(digits(), tmp_path, "sequence"))
