import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx import OnnxStream
from stl_deploy.exporters.onnx.target import OnnxSession
from stl_deploy.graph.run import run
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
