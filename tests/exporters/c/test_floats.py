"""C with float32: the compiled program against the reference run, bit for bit where sums are exact."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.c.floats.network import lay_out
from stl_deploy.exporters.c.floats.target import NAME, CFloats, CFloatsFormat, _require_room
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.targets import format_of
from stl_deploy.graph.cell import OPERATIONS
from stl_deploy.graph.neuron_cells import as_cell
from stl_deploy.graph.program import Linear, Neuron, Operand, Program
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.exporters.onnx.test_cells import every
from tests.graph import cells
from tests.program_oracle import Inexact, simulate
from tests.strategies import programs_and_inputs

HELD = [kind for kind, about in OPERATIONS.items() if about.takes == "float32" and about.exact]
MEASURED = [kind for kind, about in OPERATIONS.items() if not about.exact]


def with_cells(program: Program) -> Program:
    return replace(program, nodes=tuple(as_cell(n) if isinstance(n, Neuron) else n for n in program.nodes))


@examples(200, suppress_health_check=list(HealthCheck))
@given(case=programs_and_inputs(more="all"))
def test_a_neuron_is_the_cell_of_its_equations(case: tuple[Program, Any]) -> None:
    program, x = case
    names = [node.name for node in program.of(Neuron)]
    neurons, of_cells = run(program, x, record=names), run(with_cells(program), x, record=names)
    for name in names:
        np.testing.assert_array_equal(of_cells.recorded[name], neurons.recorded[name], name)


@examples(40, suppress_health_check=list(HealthCheck))
@given(case=programs_and_inputs(more="all"))
def test_random_programs_are_the_reference_run(case: tuple[Program, Any]) -> None:
    program, x = case
    try:
        expected = simulate(program, x)
    except Inexact:
        assume(False)
    made = CFloats(program, COptions()).run(x, record=True)
    for name, spikes in made.recorded.items():
        np.testing.assert_array_equal(spikes, expected[name], name)
    for node in program.outputs:
        np.testing.assert_array_equal(made.outputs[node.name], expected[node.name], node.name)


@pytest.mark.parametrize("net", [cells.feed_forward(), cells.counting()], ids=["states", "int64"])
def test_cells_are_the_reference_run(net: Program) -> None:
    x = cells.drive()
    np.testing.assert_array_equal(CFloats(net, COptions()).run(x).y, run(net, x).y)


def test_states_of_several_shapes_and_a_loop() -> None:
    net, x = cells.recurrent(), cells.drive()
    expected, made = run(net, x, record=["spikes"]), CFloats(net, COptions()).run(x, record=True)
    np.testing.assert_array_equal(made.recorded["spikes"], expected.recorded["spikes"])
    np.testing.assert_allclose(made.y, expected.y, atol=1e-6)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize(("kinds", "most"), [(HELD, 0), (MEASURED, 4)], ids=["exact", "inexact"])
def test_every_operation(kinds: list[str], most: int, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    monkeypatch.setenv("CC", compiler)
    made = replace(every(kinds), operands=(Operand("w_in"),))
    net = cells.program(cells.weights("w_in", "input", 3, 5, 1), made, last="cell", shape=made.shape)
    x = cells.drive() * np.random.default_rng(1).normal(0, 2, (20, 4, 5)).astype(np.float32)
    expected = run(net, x).y
    got = CFloats(net, COptions()).compiled_with(["-O3", "-march=native"]).run(x).y
    assert np.isfinite(expected).all()
    off = np.abs(got - expected)
    sums = 8 * np.spacing(np.abs(expected).max())  # the weights' own sums have another order
    np.testing.assert_array_less(off, (most + 0.5) * np.spacing(np.abs(expected)) + sums)


def test_nan_and_casts_to_bool_are_the_reference_run() -> None:
    """0/0 in silence passes through bounds and signs, and compares with nothing; 0.3 is true."""
    lines = ["size = abs x", "share = div x size", "low = min share one", "top = max low zero", "s = sign top"]
    lines += ["f:bool = gt s half", "spike = cast f", "small = mul x half", "b:bool = cast small", "told = cast b"]
    constants = (("one", np.float32(1)), ("zero", np.float32(0)), ("half", np.float32(0.5)))
    net = cells.cell("cell", [("x", Operand("w_in"), (3,))], lines, constants=constants, outputs=("spike", "told"))
    program = cells.program(cells.weights("w_in", "input", 3, 5, 1), net, last="cell", shape=net.shape)
    x = cells.drive()
    x[:5] = 0
    expected = run(program, x).y
    assert 0 < expected[:, :, :3].mean() < expected[:, :, 3:].mean() < 1
    np.testing.assert_array_equal(CFloats(program, COptions()).run(x).y, expected)


def test_a_network_that_diverges_is_said_to() -> None:
    net = cells.feed_forward()
    grows = replace(net.by_name["cell"], outputs=("v",)) if "v" in cells.adaptive().values else None
    assert grows is not None
    with pytest.raises(InputError) as error:
        CFloats(cells.program(net.by_name["w_in"], grows, last="cell"), COptions()).run(cells.drive() * 3e38)
    assert error.value.slug == "diverges"


def written(folder: Path, **options: Any) -> Path:
    CFloatsFormat().write(cells.feed_forward(), folder, COptions(numbers="float32", **options))
    return folder


def test_a_folder_is_read_back_and_runs_alike(tmp_path: Path) -> None:
    folder, x = written(tmp_path / "out", name="kws"), cells.drive()
    assert {path.name for path in folder.iterdir()} == {"kws.c", "kws.h", "main.c", "Makefile", NAME}
    of = format_of(folder)
    assert of is not None
    assert of.name == "c_floats"
    np.testing.assert_array_equal(of.load(folder).run(x).y, run(cells.feed_forward(), x).y)


def test_edited_c_is_refused_unless_trusted(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    source = folder / "net.c"
    source.write_text(source.read_text().replace("return 0;", "return 1;"))
    with pytest.raises(InputError, match=r"net\.c: expected what stl-deploy makes"):
        CFloats(folder, COptions())
    CFloats(folder, COptions(trust=True)).run(cells.drive())


@pytest.mark.parametrize("limit", ["flash", "ram"])
def test_too_little_memory_is_refused_before_anything_is_written(tmp_path: Path, limit: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        written(tmp_path / "out", **{limit: "16"})
    assert error.value.slug == f"too-much-{limit}"
    assert not (tmp_path / "out").exists()


def test_c_that_would_not_be_read_back_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("stl_deploy.integers.store", "stl_deploy.exporters.c.floats.target"):
        monkeypatch.setattr(f"{module}.MAX_FILE", 3000)
    with pytest.raises(UnsupportedError) as error:
        written(tmp_path / "out")
    assert error.value.slug == "too-much-text"
    assert not (tmp_path / "out").exists()
    wide = Linear(
        name="fc",
        shape=(90,),
        operands=(Operand("input"),),
        weight=np.ones((90, 3), np.float32),
        bias=None,
        input_shape=(3,),
    )
    found = [finding.slug for finding in CFloatsFormat().check(cells.program(wide, last="fc", size=3))]
    assert found == ["too-much-text"]


def test_a_network_without_tables_may_be_too_large_by_its_code() -> None:
    lif = Neuron(name="lif", shape=(3,), operands=(Operand("input"),), decay=np.float32(0.5), threshold=np.float32(1))
    layout = lay_out(cells.program(lif, last="lif", size=3))
    assert not layout.flash
    with pytest.raises(UnsupportedError) as error:
        _require_room(layout, COptions(numbers="float32", flash="1K"), 2000)
    assert (error.value.node, error.value.slug) == ("lif", "too-much-flash")


def test_options_of_integers_are_refused() -> None:
    with pytest.raises(InputError, match="potentials"):
        COptions(numbers="float32", potentials=16)
