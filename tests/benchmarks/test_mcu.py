"""A network on emulated boards spikes as its integers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.mcu.__main__ import BOARDS, FLOAT_BOARDS, measure, measure_floats, table
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.target import CFormat, read_folder
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.verbs.capturing import untrained_graph
from tests.exporters.netx.programs import conv_net, events
from tests.graph import cells


@pytest.mark.parametrize("board", BOARDS)
def test_spikes_on_a_board(board: str, tmp_path: Path) -> None:
    if BOARDS[board].missing is not None:
        pytest.skip(str(BOARDS[board].missing))
    rng = np.random.default_rng(3)
    program, x = conv_net(rng), events(rng, 8, 60, 1, 6, 6)
    CFormat().write(program, tmp_path / "c", COptions(x=x))
    graph, _ = read_folder(tmp_path / "c")
    few, many = (measure(tmp_path / "c", to_integers(x[:, :n], graph.input.scale), board, "-O2") for n in (4, 40))
    assert many.differing == 0
    assert many.compared == 8 * 40 * (4 * 36 + 36 + 10 + 2)
    plan = read_folder(tmp_path / "c")[1].plan
    assert plan.flash <= many.constants < plan.flash + 100  # and the layers' shapes
    assert many.ram == plan.ram
    assert few.instructions == pytest.approx(many.instructions, rel=0.3)
    assert board in table([many])


@pytest.mark.parametrize("board", FLOAT_BOARDS)
def test_bits_of_a_cell_on_a_board_with_a_float_unit(board: str) -> None:
    if FLOAT_BOARDS[board].missing is not None:
        pytest.skip(str(FLOAT_BOARDS[board].missing))
    for net in (cells.feed_forward(), cells.recurrent()):
        measured = measure_floats(net, cells.drive(), board, "-O3")
        assert (measured.differing, measured.compared) == (0, cells.drive().shape[0] * 4 * net.outputs[0].shape[0])


def test_instructions_of_layers_add_up_to_those_of_the_network(tmp_path: Path) -> None:
    board = "Cortex-M4"
    if BOARDS[board].missing is not None:
        pytest.skip(str(BOARDS[board].missing))
    rng = np.random.default_rng(3)
    program, x = conv_net(rng), events(rng, 8, 40, 1, 6, 6)
    CFormat().write(program, tmp_path / "c", COptions(x=x))
    graph, made = read_folder(tmp_path / "c")
    whole = to_integers(x, graph.input.scale)
    found = measure(tmp_path / "c", whole, board, "-O2", by_layer=True)
    named = [name for names in found.layers for name in names.split(" + ")]
    assert named == list(made.plan.shares)
    assert sum(found.layers.values()) == pytest.approx(found.instructions, rel=0.15)  # and what reads the timer takes
    assert min(found.layers.values()) > 0
    portable = measure(tmp_path / "c", whole, board, "-O2", options=("-DNET_PORTABLE",))
    assert portable.differing == found.differing == 0
    assert portable.instructions != found.instructions


@pytest.mark.parametrize("board", ["Cortex-M4", "RV32IMC"])
def test_the_ecg_preset_on_a_board(board: str, tmp_path: Path) -> None:
    """The shipped network for heartbeats with weights as drawn: every spike of every step."""
    if BOARDS[board].missing is not None:
        pytest.skip(str(BOARDS[board].missing))
    graph, dialect = untrained_graph("qtdb_ecg")
    program = lower(graph, dialect)
    x = (np.random.default_rng(0).random((40, 3, *program.inputs[0].shape)) < 0.3).astype(np.float32)
    CFormat().write(program, tmp_path / "c", COptions(x=x, labels=np.zeros((3, len(x)), np.int64)))
    found = measure(tmp_path / "c", x.astype(np.int32), board, "-O3")
    assert found.differing == 0
    assert found.compared > 3 * 40 * 36
