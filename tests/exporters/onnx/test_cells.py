"""Cells in ONNX: each form gives the reference's bits."""

from dataclasses import replace

import numpy as np
import pytest

from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel, OnnxStream
from stl_deploy.graph.cell import OPERATIONS
from stl_deploy.graph.program import Operand
from stl_deploy.graph.run import run
from tests.graph.cells import F, cell, counting, drive, feed_forward, program, recurrent, weights

NUMBERS = [kind for kind, about in OPERATIONS.items() if about.takes == "float32" and about.exact]
INEXACT = [kind for kind, about in OPERATIONS.items() if not about.exact]


def exported(net, tmp_path, form, **sizes):
    path = tmp_path / f"{form}.onnx"
    export_onnx(net, path, form=form, **sizes)
    return OnnxModel.load(path)


@pytest.mark.parametrize("net", [feed_forward(), recurrent()], ids=["feed-forward", "recurrent"])
def test_each_form_gives_the_reference_run(net, tmp_path):
    x = drive()
    names = [node.name for node in net.compared]
    expected = run(net, x, record=names)
    for form, sizes in (("sequence", {}), ("unrolled", {"steps": len(x)}), ("sequence", {"batch": x.shape[1]})):
        got = exported(net, tmp_path, form, **sizes).run(x, record=names)
        np.testing.assert_array_equal(got.y, expected.y)
        for name in names:
            np.testing.assert_array_equal(got.recorded[name], expected.recorded[name])
    stream = OnnxStream(exported(net, tmp_path, "step"))
    for _ in range(2):
        np.testing.assert_array_equal(np.stack([stream.step(x_t).y for x_t in x]), expected.y)
        stream.reset()


def test_integers_beyond_floats_are_exact(tmp_path):
    net, x = counting(), drive()
    expected = run(net, x).y
    np.testing.assert_array_equal(expected[:, 0, 0], np.arange(1, len(x) + 1))
    for form, sizes in (("sequence", {}), ("unrolled", {"steps": len(x)})):
        np.testing.assert_array_equal(exported(net, tmp_path, form, **sizes).run(x).y, expected)
    stream = OnnxStream(exported(net, tmp_path, "step"))
    np.testing.assert_array_equal(np.stack([stream.step(x_t).y for x_t in x]), expected)


def every(kinds):
    lines = []
    for kind in kinds:
        about = OPERATIONS[kind]
        near = "size" if not about.exact and kind != "tanh" else "x"
        args = [near, "level", "v"][: about.arity]
        lines.append(f"{kind}_made = {kind} {' '.join(args)}")
    return cell(
        "cell",
        [("x", "w_in", (3,))],
        ["size0 = abs x", "size = add size0 level", *lines],
        states=(("v", "x", np.zeros(3, F)),),
        constants=(("level", F(0.3)),),
        outputs=tuple(line.split(" = ")[0] for line in lines),
    )


@pytest.mark.parametrize(("kinds", "most"), [(NUMBERS, 0), (INEXACT, 4)], ids=["exact", "inexact"])
def test_every_operation_on_numbers(kinds, most, tmp_path):
    made = replace(every(kinds), operands=(Operand("w_in"),))
    net = program(weights("w_in", "input", 3, 5, 1), made, last="cell", shape=made.shape)
    x = drive() * np.random.default_rng(1).normal(0, 2, (20, 4, 5)).astype(F)
    expected = run(net, x).y
    got = exported(net, tmp_path, "sequence").run(x).y
    assert np.isfinite(expected).all()
    np.testing.assert_array_less(np.abs(got - expected), (most + 0.5) * np.spacing(np.abs(expected)) + 1e-30)
