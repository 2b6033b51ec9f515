"""examples/streaming.py: run as a user does, and its streams against the reference."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stl_deploy._util.files import read_input
from stl_deploy.exporters.onnx import export_onnx
from stl_deploy.exporters.onnx.runtime import onnxruntime
from stl_deploy.graph.readout import exit_steps, sureness
from stl_deploy.graph.run import run
from stl_deploy.runs.source import TEST_INPUT, open_program, open_source

EXAMPLE = Path(__file__).parents[2] / "examples" / "streaming.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("streaming_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_prints_the_references_spikes_and_classes(digits_run):
    command = [sys.executable, str(EXAMPLE), str(digits_run), "--samples", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    program = open_program(open_source(digits_run))
    x, labels = read_input(digits_run / TEST_INPUT)
    names = [node.name for node in program.spiking]
    expected = run(program, x[:, :2], record=names)
    lines = []
    for i in range(2):
        votes = expected.y[:, i].cumsum(axis=0)
        for t in range(len(x)):
            counts = "  ".join(f"{name} {int(expected.recorded[name][t, i].sum())}" for name in names)
            lines.append(f"sample {i}, step {t}: spikes {counts}; class so far: {votes[t].argmax()}")
        lines.append(f"sample {i}: class {votes[-1].argmax()}, label {labels[i]}")
    assert done.stdout.splitlines() == lines


def test_with_a_margin_a_sample_stops_once_it_is_sure(digits_run):
    program = open_program(open_source(digits_run))
    x, _ = read_input(digits_run / TEST_INPUT)
    sure = sureness(program, run(program, x[:, :2]).y)
    margin = float(np.quantile(sure[:-1], 0.5))
    command = [sys.executable, str(EXAMPLE), str(digits_run), "--samples", "2", "--margin", repr(margin)]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    steps = exit_steps(sure, margin)
    assert steps.min() < len(x)
    for i in range(2):
        assert sum(line.startswith(f"sample {i}, step") for line in done) == steps[i]


@pytest.mark.push(1)
def test_one_session_serves_streams_that_take_turns(example, digits_run, tmp_path):
    program = open_program(open_source(digits_run))
    export_onnx(program, tmp_path / "net.onnx", form="step")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    x, _ = read_input(digits_run / TEST_INPUT)
    expected = run(program, x[:, :3]).y
    one, two = example.Stream(session), example.Stream(session, batch=2)
    for t in range(len(x)):
        np.testing.assert_array_equal(two.step(x[t, 1:3])[0], expected[t, 1:3])
        np.testing.assert_array_equal(one.step(x[t, :1])[0], expected[t, :1])


def test_a_stream_can_be_rewound(example, digits_run, tmp_path):
    program = open_program(open_source(digits_run))
    export_onnx(program, tmp_path / "net.onnx", form="step")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    x, _ = read_input(digits_run / TEST_INPUT)
    stream = example.Stream(session)
    stream.step(x[0, :1])
    kept = stream.states
    first = stream.step(x[1, :1])[1]
    stream.states = kept
    again = stream.step(x[1, :1])[1]
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != example.Stream(session).step(x[1, :1])[1][name]).any() for name in first)


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path):
    done = subprocess.run([sys.executable, str(EXAMPLE), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "net.nir" in done.stderr
