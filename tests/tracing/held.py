"""What a new node or field needs of every target: it is held, and runs to the same values, or is refused by node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.targets import findings, registry
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.compare import ROUNDING


def require_cell(model: nn.Module, x: Tensor, *unseen: Tensor) -> None:
    """Require that a model is captured with a Cell, and computes the same on x and on unseen input."""
    net = stl.capture(model, x, progress=False)
    assert any(net.program.of(Cell))
    for given in (x, *unseen):
        expected = model.eval()(given).detach().numpy()
        np.testing.assert_allclose(net.simulate(given.numpy()).y, expected, rtol=1e-4, atol=1e-5)


def require_held_or_refused(net: stl.SpikingGraph, x: Tensor, folder: Path, holding: set[str]) -> None:
    """Export to every Format and run on every Runner; raises AssertionError unless just ``holding`` hold it.

    A Format that exports verifies its artifact itself. A Runner must give the reference's spikes and outputs;
    torch's and Brian2's may differ by the rounding of sums in another order: these networks lie on no exact grid.
    """
    expected = net.simulate(x.numpy(), record=True)
    held = set()
    for name, to in registry().formats.items():
        refusals = [found for found in findings(to, net.program) if found.severity == "error"]
        try:
            net.export(folder / (f"net{to.suffix}" if to.suffix else name), to=name)
        except UnsupportedError as error:
            _require_node(error, name)
            if not refusals:
                raise AssertionError(f"{name} refuses at export what check passes") from error
        else:
            assert not refusals, name
            held.add(name)
    assert held == holding
    for name in registry().checks:
        assert not net.check(name).ok, name
    for name, kind in registry().runners.items():
        if kind.reads or kind.available() is not None:
            continue
        try:
            run = net.simulate(x.numpy(), backend=name, record=True)
        except UnsupportedError as error:
            _require_node(error, name)
        else:
            for layer, spikes in expected.spikes.items():
                np.testing.assert_array_equal(run.spikes[layer], spikes, err_msg=f"{name}: {layer}")
            rounding = ROUNDING * np.abs(expected.y).max() if name in ("torch", "brian2") else 0
            np.testing.assert_allclose(run.y, expected.y, rtol=0, atol=rounding, err_msg=name)


def _require_node(error: UnsupportedError, target: str) -> None:
    if error.node is None:
        raise AssertionError(f"{target} refuses without naming a node") from error
