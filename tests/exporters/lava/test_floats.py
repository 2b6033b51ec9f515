"""Raw Lava processes in floating point: every spike as the reference, on nets on exact grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.lava.target import run_lava_float
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import run
from tests.exporters.netx.programs import Builder, conv_net, events


def on_grid(program: Program) -> Program:
    """Weights and biases on multiples of 1/64, so that float32 sums are exact."""
    from dataclasses import replace

    def rounded(node: Any) -> Any:
        if not hasattr(node, "weight"):
            return node
        bias = None if node.bias is None else np.round(node.bias * 64) / np.float32(64)
        return replace(node, weight=np.round(node.weight * 64) / np.float32(64), bias=bias)

    return replace(program, nodes=tuple(rounded(node) for node in program.nodes))


def mlp() -> tuple[Program, Any]:
    rng = np.random.default_rng(0)
    build = Builder((20,)).linear("fc1", rng.normal(0, 0.5, (30, 20)), rng.normal(0, 0.2, 30))
    build.lif("a", rng.uniform(0.5, 1.5, 30)).linear("fc2", rng.normal(0, 0.5, (7, 30))).lif("b", 1.0)
    return on_grid(build.program()), events(rng, 9, 12, 20)


def conv(granularity: str) -> tuple[Program, Any]:
    rng = np.random.default_rng(1)
    return on_grid(conv_net(rng, granularity)), events(rng, 6, 8, 1, 6, 6)


@pytest.mark.lava
@pytest.mark.usefixtures("lava_python")
@pytest.mark.parametrize("name", ["mlp", "channel", "pixel"])
def test_every_spike_is_the_references(name: str) -> None:
    program, x = mlp() if name == "mlp" else conv(name)
    names = [node.name for node in program.spiking]
    wanted = run(program, x, record=names)
    found = run_lava_float(program, x, deadline=200)
    assert list(found.spikes) == names
    for node in names:
        assert 0 < wanted.recorded[node].mean() < 1
        np.testing.assert_array_equal(found.spikes[node], wanted.recorded[node], err_msg=node)
    np.testing.assert_allclose(found.y, wanted.y, rtol=1e-6)


def test_what_lavas_lif_cannot_hold_and_inputs_that_do_not_fit_are_refused() -> None:
    program = Builder((3,)).linear("fc", np.ones((2, 3))).lif("a", 1.0, reset="subtract").program()
    with pytest.raises(UnsupportedError, match="its reset is 'subtract'"):
        run_lava_float(program, np.ones((2, 3, 3), np.float32))
    with pytest.raises(InputError, match=r"expected input \[T, B, 3\]; found \[2, 3, 4\]"):
        run_lava_float(program, np.ones((2, 3, 4), np.float32))
