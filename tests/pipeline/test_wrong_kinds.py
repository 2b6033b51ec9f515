"""A list, None or a module where one name or path belongs: one sentence, never a bare Python error."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl

X = (torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(0)) < 0.4).float()

TENSOR, AS_TENSOR = "expected a torch tensor [T, B, 4]; found", "torch.as_tensor(x, dtype=torch.float32)"
OF_TYPE = "expected input of torch.float32, which the module computes in; found"


@pytest.fixture(scope="module")
def net() -> stl.SpikingGraph:
    torch.manual_seed(0)
    return stl.capture(nn.Sequential(nn.Linear(4, 3), stl.LIF((3,), threshold=0.05)), X)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda net: net.check(["c", "onnx"]), r"as check\('onnx', 'c'\); found a list: \['c', 'onnx'\]"),
        (lambda net: net.check(None), "found a NoneType: None"),
        (lambda net: net.simulate(X, backend=["onnx"]), "expected the name of one backend, as 'onnx'; found a list"),
        (lambda net: net.export("net.onnx", to=["onnx"]), "expected the name of one format, as 'onnx'; found a list"),
        (lambda net: net.export(None), "expected the path of one file or folder; found a NoneType"),
        (lambda net: stl.read(None), "expected the path of one file or folder; found a NoneType"),
        (lambda net: stl.read(nn.Linear(1, 1)), "expected the path of one file or folder; found a Linear"),
        (lambda net: net.verify(nn.Sequential(nn.Linear(1, 1))), "of one file or folder; found a Sequential"),
        (lambda net: net.verify(None, X), "expected the path of one file or folder; found a NoneType"),
        (lambda net: net.evaluate([(X, [0] * 5)], backend=[None]), "one file or folder; found a NoneType"),
        (lambda net: net.export("/proc/net.onnx"), "cannot write in /proc: No such file or directory"),
        (lambda net: net.fold(input_grid="8"), "input_grid: expected an integer; found '8'"),
        (lambda net: net.energy(X, prices=[None]), "expected names or paths of price lists; found None"),
        (lambda net: net.energy(X, prices=5), "expected names or paths of price lists; found 5"),
        (
            lambda net: net.energy(X, np.eye(3)[[0, 1, 2, 0, 1]]),
            r"one-hot: give labels\.argmax\(axis=1\)",
        ),
        (lambda net: net.export("net", to="c", package=["cmake"]), "package: expected one of cmake, .*; found"),
        (lambda net: net.energy(X).to_html(None), "expected the path of one file or folder; found a NoneType"),
        (lambda net: net.energy(X).to_figures(None), "expected the path of one file or folder; found a NoneType"),
    ],
)
def test_a_wrong_kind_is_one_sentence(
    net: stl.SpikingGraph, call: Callable[[Any], Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(stl.InputError, match=sentence):
        call(net)
    assert list(tmp_path.iterdir()) == []


def test_several_are_given_as_each_takes_them(net: stl.SpikingGraph, tmp_path: Path) -> None:
    """What the sentences name."""
    assert net.energy(X, np.eye(3)[[0, 1, 2, 0, 1]].argmax(axis=1)).totals["spikes"]
    assert set(net.check("c", "onnx").targets) == {"c", "onnx"}
    net.export(tmp_path / "net.onnx")
    net.verify([tmp_path / "net.onnx", str(tmp_path / "net.onnx")], X).require()
    assert set(net.evaluate([(X, np.zeros(5, int))], backend=["onnx"]).backends) == {"onnx"}


def test_any_iterable_names_several(net: stl.SpikingGraph, tmp_path: Path) -> None:
    net.export(tmp_path / "net.onnx")
    net.export(tmp_path / "net.nir")
    for several in (tmp_path.glob("net.onnx"), {"a": tmp_path / "net.onnx"}.values(), map(str, tmp_path.glob("*.nir"))):
        net.verify(several, X).require()
    assert set(net.evaluate([(X, np.zeros(5, int))], backend=(name for name in ["onnx"])).backends) == {"onnx"}
    names = ["loihi1_sanafe", "horowitz45_fp32"]
    expected = net.energy(X, prices=names).report.as_dict()
    assert net.energy(X, prices=(name for name in names)).report.as_dict() == expected


def test_numbers_of_bits_and_batches_are_numpys_too(net: stl.SpikingGraph) -> None:
    bits, labels = np.int64(3), np.zeros(5, int)
    folded = net.fold(input_grid=bits)
    assert folded.program.metadata["input"] == net.fold(input_grid=3).program.metadata["input"]
    assert set(net.check("c", input_grid=bits).targets) == {"c"}
    x = X.numpy() * 0.7
    found = net.evaluate([(x.astype(np.float64), labels)], input_grid=bits)
    assert found.layers == net.evaluate([(x, labels)], input_grid=3).layers
    assert (np.asarray(net.simulate(x, input_grid=bits).y) == net.simulate(x, input_grid=3).y).all()


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_batches_of_other_floats_are_evaluated_as_float32(net: stl.SpikingGraph, kind: Any) -> None:
    x = np.random.default_rng(0).random((6, 5, 4)).astype(kind)
    labels = np.arange(5) % 3
    found, expected = net.evaluate([(x, labels)]), net.evaluate([(x.astype(np.float32), labels)])
    assert (found.accuracy, found.layers) == (expected.accuracy, expected.layers)
    assert sum(compared for compared, _ in found.layers.values()) == 90


@pytest.mark.parametrize("made", [lambda net: net.module(), lambda net: net.quantised()])
@pytest.mark.parametrize(
    ("x", "sentence", "instead"),
    [
        (X.numpy(), f"{TENSOR} a ndarray; give", AS_TENSOR),
        (X.tolist(), f"{TENSOR} a list; give", AS_TENSOR),
        (X.double(), f"{OF_TYPE} torch.float64; give", "x.to(torch.float32)"),
        (X.half(), f"{OF_TYPE} torch.float16; give", "x.to(torch.float32)"),
    ],
)
def test_a_module_s_input_of_another_kind_is_one_sentence(
    net: stl.SpikingGraph, made: Callable[[Any], Any], x: Any, sentence: str, instead: str
) -> None:
    """They ended in torch's errors, or in that of a missing attribute."""
    module = made(net)
    for call in (module, module.record):
        with pytest.raises(stl.InputError, match=f"^{re.escape(f'{sentence} {instead}')}$"):
            call(x)
    torch.testing.assert_close(module(eval(instead, {"torch": torch, "x": x})), module(X))


def test_a_module_takes_input_of_its_own_type_and_one_of_integers_integers(net: stl.SpikingGraph) -> None:
    double, whole = net.module().double(), net.quantised()
    assert double(X.double()).dtype == torch.float64
    with pytest.raises(stl.InputError, match=r"expected input of torch\.float64.*; give x\.to\(torch\.float64\)"):
        double(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net.module()(X.bfloat16())
    for x in (X.bool(), X.int()):
        torch.testing.assert_close(whole(x), whole(X))
    for call in (net.simulate, net.module(), whole):
        for x in (X[:, :0], X[:0], X[0]):
            with pytest.raises(stl.InputError, match=r"\[T, B, 4\](, as the module takes it| with T, B >= 1); found"):
                call(x)
