import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx import OnnxStream
from stl_deploy.graph.run import run
from tests.exporters.onnx.nets import chain, digits, neuron, spikes, write


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


def test_wrong_shape(tmp_path):
    stream = OnnxStream(write(digits(), tmp_path, "step"))
    with pytest.raises(InputError, match="input 'input': expected shape"):
        stream.step(spikes(2, 1, 5, 6))


def test_a_sequence_file_does_not_stream(tmp_path):
    with pytest.raises(InputError, match="takes whole sequences; to stream, export it in the step form"):
        OnnxStream(write(digits(), tmp_path, "sequence"))
