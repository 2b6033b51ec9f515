"""From a Program to a Verilog folder and back: what is refused, what is proved, and folders not to be trusted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from stl_deploy.energy.chips.fpga import energy_range
from stl_deploy.errors import InputError, ToolError, UnsupportedError
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.targets import format_of
from stl_deploy.exporters.verilog import simulator
from stl_deploy.exporters.verilog.devices import DEVICES, GENERIC
from stl_deploy.exporters.verilog.fits import Memory, blocks_of, loaded_blocks, ram_blocks, require_fits, varying_bits
from stl_deploy.exporters.verilog.folder import read_folder
from stl_deploy.exporters.verilog.lower import make_plan
from stl_deploy.exporters.verilog.maps import chunks
from stl_deploy.exporters.verilog.render import ENGINE, engine_text
from stl_deploy.exporters.verilog.simulator import MISSING, simulators
from stl_deploy.exporters.verilog.synthesis import FAMILIES, FLOWS, NETLIST, after_synthesis, synthesise
from stl_deploy.exporters.verilog.target import Verilog, VerilogFormat, VerilogOptions
from stl_deploy.graph.program import Input, Linear, MaxPool, Neuron, Operand, Output, Pool, Program
from stl_deploy.graph.run import run
from stl_deploy.integers.graph import GainNode, IntegerGraph, IntegerInput, IntegerLIF, IntegerOutput
from stl_deploy.integers.net import LOIHI, WIDE, IntegerNeuron
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import NAME
from tests.exporters.netx.programs import Builder, F, events
from tests.graph.nets import bare, chain, lif

needs_simulator = pytest.mark.skipif(not simulators(), reason=MISSING)
RNG = np.random.default_rng


def network() -> tuple[Any, Any]:
    build = Builder((1, 6, 6)).conv("c", RNG(3).normal(0, 0.5, (8, 1, 3, 3)), None, ((1, 1), (1, 1))).lif("a", 0.8)
    build.max_pool("pool").flatten("flat").linear("fc", RNG(4).normal(0, 0.3, (5, 72))).lif("b", 0.5)
    return build.program(), events(RNG(0), 4, 3, 1, 6, 6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    program, x = network()
    VerilogFormat().write(program, tmp_path / "v", VerilogOptions(x=x))
    return tmp_path / "v"


@needs_simulator
def test_an_export_spikes_as_its_integers(folder: Path) -> None:
    program, x = network()
    runner = VerilogFormat().load(folder).of(program)
    found, model = runner.run(x, record=True), runner.model(program).run(x, record=True)
    np.testing.assert_array_equal(found.y, model.y)
    for name in ("a", "pool", "b"):
        np.testing.assert_array_equal(found.recorded[name], model.recorded[name])
    assert found.recorded["a"].any()


@needs_simulator
def test_sums_past_loihis_24_bits_spike_as_the_network_does() -> None:
    program = Builder((1200,)).linear("fc", np.ones((1, 1200))).lif("a", 1.0).program()
    x = np.stack([np.ones((2, 1200), F), np.zeros((2, 1200), F)], axis=1)
    np.testing.assert_array_equal(Verilog(program, VerilogOptions(x=x)).run(x).y, run(program, x).y)


def test_widths_stand_as_plain_decimals(folder: Path) -> None:
    """Spikes go in and out: 0 and 1, with a sign."""
    text = (folder / "snn.v").read_text()
    assert "    localparam IN_BITS = 2;\n" in text
    assert "    localparam OUT_BITS = 2;\n" in text


def test_a_folder_is_known_by_its_engine(folder: Path) -> None:
    found = format_of(folder)
    assert found is not None
    assert found.name == "verilog"
    assert [row.node for row in VerilogFormat().rows(folder)][-1] == "out"


@pytest.mark.push(3)
@pytest.mark.parametrize("name", [ENGINE, "snn.v", "snn_tables.v", "snn_weights.hex", "tb.v", "Makefile"])
def test_edited_text_is_not_run(folder: Path, name: str) -> None:
    path = folder / name
    path.write_text(path.read_text() + "\n")
    with pytest.raises(InputError, match=r"expected what stl-deploy makes of integers.npz; found other text"):
        VerilogFormat().load(folder)


def test_a_folder_without_its_files(folder: Path) -> None:
    (folder / "snn_rows.hex").unlink()
    with pytest.raises(InputError, match=r"snn_rows.hex: expected .* found no such file; export it again"):
        read_folder(folder)
    (folder / NAME).unlink()
    with pytest.raises(InputError, match=NAME):
        read_folder(folder)


@pytest.mark.parametrize("lanes", [0, 3, 128, 512, -4])
def test_lanes_that_no_layer_fills(lanes: int, tmp_path: Path) -> None:
    program, x = network()
    with pytest.raises(InputError, match=rf"lanes: expected a power of two up to 64; found {lanes}"):
        VerilogFormat().write(program, tmp_path / "v", VerilogOptions(x=x, lanes=lanes))
    assert not (tmp_path / "v").exists()


def test_devices_that_are_unknown_or_too_small(tmp_path: Path) -> None:
    program, x = network()
    with pytest.raises(InputError, match=r"device: expected one of up5k, .*found 'up5'.*up5k"):
        VerilogFormat().write(program, tmp_path / "v", VerilogOptions(x=x, device="up5"))
    wide = Builder((2000,)).linear("fc", RNG(0).normal(0, 1, (100, 2000))).lif("a", 1.0).program()
    x = (RNG(1).random((1, 1, 2000)) < 0.5).astype(F)
    with pytest.raises(
        UnsupportedError,
        match=r"HX8K is too small: with 8 lanes the network takes \d+ RAM blocks, \d+ more than its 32 .*use device=",
    ):
        VerilogFormat().write(wide, tmp_path / "v", VerilogOptions(x=x, device="hx8k"))


def test_fewer_lanes_are_offered_where_they_fit() -> None:
    """Words of 16 lanes take eight single-port RAMs of 16 x 16,384 bits, those of 8 lanes four."""
    program = Builder((256,)).linear("fc", RNG(0).integers(-127, 128, (128, 256)).astype(F)).lif("a", 127.0).program()
    x, device = (RNG(1).random((1, 1, 256)) < 0.5).astype(F), DEVICES["up5k"]
    graph = choose(program, x).graph
    with pytest.raises(
        UnsupportedError, match=r"takes 8 single-port RAMs, 4 more than its 4 \(.*use lanes=8 or device="
    ):
        require_fits(make_plan(graph, 16, device), device)
    require_fits(make_plan(graph, 8, device), device)


def test_what_no_device_holds_says_by_how_much_and_goes_to_any_device() -> None:
    """600,000 weights of 8 bits are 4.8 Mbit; the largest device, ECP5 85F, has 208 blocks of 18 Kbit."""
    program = Builder((3000,)).linear("fc", RNG(0).integers(-127, 128, (200, 3000)).astype(F)).lif("a", 127.0).program()
    x = (RNG(1).random((1, 1, 3000)) < 0.5).astype(F)
    graph = choose(program, x).graph
    for device in DEVICES.values():
        with pytest.raises(UnsupportedError, match="no device here holds it; device='generic' writes it for another"):
            require_fits(make_plan(graph, 8, device), device)
    plan = make_plan(graph, 8, DEVICES["ecp5-85f"])
    blocks = ram_blocks(plan, plan.device)
    assert blocks >= 600_000 * 8 / 18432
    with pytest.raises(UnsupportedError, match=rf"takes {blocks} RAM blocks, {blocks - 208} more than its 208 \("):
        require_fits(plan, plan.device)
    require_fits(make_plan(graph, 8, GENERIC), GENERIC)


def test_loihis_integers_are_refused(folder: Path) -> None:
    graph, _ = read_folder(folder)
    with pytest.raises(InputError, match="expected integers with the wide accumulator; found those of 'loihi'"):
        make_plan(replace(graph, accumulator=LOIHI))


def test_thresholds_below_0_are_refused(folder: Path) -> None:
    graph, _ = read_folder(folder)
    nodes = tuple(
        replace(node, neuron=replace(node.neuron, threshold=np.full((), -1, np.int32)))
        if isinstance(node, IntegerLIF)
        else node
        for node in graph.nodes
    )
    with pytest.raises(UnsupportedError, match="its least threshold is -1; the engine holds thresholds from 0"):
        make_plan(replace(graph, nodes=nodes))


def test_a_large_irregular_way_is_refused_before_it_is_unrolled() -> None:
    """A gain for each of 262,144 values: a matrix of them would have 2^36 numbers."""
    shape = (4, 256, 256)
    gain = np.arange(4 * 256 * 256, dtype=np.int32).reshape(shape) % 100
    neuron = IntegerNeuron(v_decay=4096, threshold=np.full((), 60, np.int32))
    graph = IntegerGraph(
        (
            IntegerInput(name="in", shape=shape, operands=(), low=0, high=1, scale=1.0),
            GainNode(name="gain", shape=shape, operands=(Operand("in"),), weight=gain),
            IntegerLIF(name="lif", shape=shape, operands=(Operand("gain"),), neuron=neuron, bias=None),
            IntegerOutput(name="out", shape=shape, operands=(Operand("lif"),), unit=1.0),
        ),
        WIDE,
    )
    with pytest.raises(UnsupportedError, match=r"the path to it by gain is no product .* has 68,719,476,736 numbers"):
        make_plan(graph)


def test_numbers_wider_than_a_weight_come_in_parts() -> None:
    values = np.array([-70000, -129, -128, 0, 1, 127, 128, 40000])
    parts = list(chunks(values, 8))
    assert sum(part << shift for shift, part in parts).tolist() == values.tolist()
    assert all(part.min() >= -128 and part.max() <= 127 for _, part in parts)
    assert [shift for shift, _ in parts] == [0, 5, 10]  # as few as there can be, with the smallest factors


MEMORIES = [
    (Memory("weights", 128, 3210, True), 104, 25),  # 13 x 128 bits in 256 x 16; 7 x 128 bits in 512 x 36
    (Memory("potentials", 176, 495, False), 22, 5),
    (Memory("weights", 64, 512, True), 8, 2),
    (Memory("columns", 10, 290, True), 2, 1),
    (Memory("rows", 10, 29, True), 0, 0),  # logic: 290 / 16 is less than a block's cost
    (Memory("inputs", 6, 64, False), 1, 0),  # no LUT RAM on iCE40
    (Memory("potentials", 44, 20, False), 3, 0),
    (Memory("taps", 19, 109, True), 0, 0),  # logic: 2071 / 16, without its fraction, is less than 128 and a port
    (Memory("taps", 19, 111, True), 2, 1),
]


@pytest.mark.parametrize(("memory", "ice40", "ecp5"), MEMORIES)
def test_blocks_of_memories(memory: Memory, ice40: int, ecp5: int) -> None:
    """The counts are those that yosys gave: see the next test."""
    for device, blocks in (("hx8k", ice40), ("ecp5-25f", ecp5)):
        family = DEVICES[device].family
        assert family is not None
        assert blocks_of(memory, family) == blocks


@pytest.mark.parametrize(("width", "words", "blocks"), [(2, 512, 0), (2, 600, 1), (3, 512, 1)])
def test_narrow_memories_stand_in_gowins_lut_ram(width: int, words: int, blocks: int) -> None:
    """synth_gowin of yosys 0.52 took these; its library counts the used bits of a LUT RAM alone."""
    family = DEVICES["gw1nr-9"].family
    assert family is not None
    assert blocks_of(Memory("spikes", width, words, False), family) == blocks


def test_bits_that_are_the_same_in_all_words_take_no_room() -> None:
    assert varying_bits([0b1001, 0b1011, 0b1000]) == 2
    assert varying_bits([7]) == varying_bits([]) == 0


@pytest.mark.skipif(shutil.which("yosys") is None, reason="no yosys")
@pytest.mark.parametrize(("flow", "cell", "column"), [("ice40", "SB_RAM40_4K", 1), ("ecp5", "DP16KD", 2)])
def test_yosys_takes_these_blocks(flow: str, cell: str, column: int, tmp_path: Path) -> None:
    (tmp_path / "engine.v").write_text(engine_text(ENGINE))
    for number, row in enumerate(MEMORIES[3:]):
        memory = row[0]
        words = RNG(0).integers(0, 2**memory.width, memory.words)
        (tmp_path / "m.hex").write_text("\n".join(f"{word:x}" for word in words))
        top = "snn_rom" if memory.rom else "snn_ram"
        sizes = {"WIDTH": memory.width, "DEPTH": memory.words, "ADDR": (memory.words - 1).bit_length()}
        sizes |= {"HEX": '"./"', "FILE": '"m.hex"'} if memory.rom else {}
        given = " ".join(f"-set {name} {value}" for name, value in sizes.items())
        script = f"read_verilog -defer engine.v; chparam {given} {top}; synth_{flow} -top {top} -run begin:map_gates"
        command = ["yosys", "-p", f"{script}; tee -o {number}.json stat -json"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        cells = json.loads((tmp_path / f"{number}.json").read_text())["design"]["num_cells_by_type"]
        assert cells.get(cell, 0) == row[column], memory


def test_without_a_simulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Verilog.available() == MISSING
    program, x = network()
    with pytest.raises(ToolError, match="no Verilog simulator found; install one"):
        Verilog(program, VerilogOptions(x=x)).run(x)


@needs_simulator
def test_a_simulation_that_takes_too_long_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, x = network()
    monkeypatch.setattr(simulator, "_built", lambda *_: ["sh", "-c", "sleep 60"])
    with pytest.raises(ToolError, match=r"the simulation in \w+ did not end within 1 s"):
        VerilogFormat().load(folder).of(program).within(1.0).run(x)


@pytest.mark.skipif(shutil.which("make") is None or "iverilog" not in simulators(), reason="no make, no iverilog")
def test_make_sim_compares_with_the_golden_vectors(folder: Path) -> None:
    makefile = folder / "Makefile"
    makefile.write_text(makefile.read_text().replace("command -v verilator", "false"))  # it takes longer to build
    assert subprocess.run(["make", "sim"], cwd=folder, capture_output=True, check=False).returncode == 0
    golden = folder / "golden" / "outputs.txt"
    golden.write_text(golden.read_text() + "9 9\n")
    assert subprocess.run(["make", "sim"], cwd=folder, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(("name", "close"), [("generic", ""), ("up5", " (did you mean 'up5k'?)")])
def test_devices_that_cannot_be_placed(name: str, close: str, folder: Path) -> None:
    placed = "device: expected one of up5k, hx8k, ecp5-25f, ecp5-85f, gw1nr-9"
    with pytest.raises(InputError, match=re.escape(f"{placed}; found '{name}'{close}")):
        synthesise(folder, name)


@pytest.mark.parametrize(
    ("device", "grade", "said"),
    [("ecp5-25f", 9, "grade: expected one of 6, 7, 8 for ecp5-25f; found 9"), ("up5k", 6, "up5k has no speed grades")],
)
def test_grades_that_a_device_lacks(device: str, grade: int, said: str, folder: Path) -> None:
    with pytest.raises(InputError, match=said):
        synthesise(folder, device, grade=grade)


@pytest.mark.parametrize(("grade", "speed"), [(None, 6), (8, 8)])
def test_a_grade_is_placed(
    grade: int | None, speed: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = '{"fmax": {"clk": {"achieved": 70.5}}, "utilization": {}}'
    for name, text in {
        "yosys": "echo yosys",
        "nextpnr-ecp5": f"case \"$*\" in *--version|*--speed={speed}\\ *) echo '{report}' >1.json;; *) exit 3;; esac",
        "ecppack": "echo bits >snn.bit",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert synthesise(folder, "ecp5-25f", seeds=(1,), grade=grade).grade == speed


def test_up5k_takes_its_weights_from_a_flash(folder: Path, tmp_path: Path) -> None:
    program, x = network()
    VerilogFormat().write(program, tmp_path / "u", VerilogOptions(x=x, device="up5k"))
    graph, design = read_folder(tmp_path / "u")
    words = (tmp_path / "u" / "snn_weights.hex").read_text().split()
    assert design.plan.loaded
    assert (tmp_path / "u" / "snn_weights.bin").read_bytes() == bytes.fromhex("".join(words))
    found, _ = design.run(to_integers(x, graph.input.scale), simulator="iverilog")
    np.testing.assert_array_equal(found.y, simulate(graph, to_integers(x, graph.input.scale)).y)
    with pytest.raises(InputError, match="was exported for up5k; export it with device='hx8k'"):
        synthesise(tmp_path / "u", "hx8k")
    with pytest.raises(InputError, match="UP5K takes its weights from a flash; export it with device='up5k'"):
        synthesise(folder, "up5k")
    (tmp_path / "u" / "snn_weights.bin").write_bytes(b"0")
    with pytest.raises(InputError, match=r"snn_weights.bin: expected the weights of integers.npz; found other bytes"):
        read_folder(tmp_path / "u")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("ERROR: No such command: synth_ecp5", "ERROR: No such command: synth_ecp5"),
        ("Info: Placing\nERROR: Failed to place 'clk'.\n0 warnings, 1 error", "ERROR: Failed to place 'clk'."),
        ("1 warning, 0 errors", "1 warning, 0 errors"),
    ],
)
def test_a_tool_that_fails_shows_its_error(
    said: str, shown: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("yosys", "nextpnr-ecp5", "ecppack"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{said}" >&2; exit 1\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ToolError, match=f"yosys failed with exit code 1: {re.escape(shown)}$"):
        synthesise(folder, "ecp5-25f")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_gowin_takes_the_boards_pins_and_clock(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the tools: fail unless called as the real ones need it."""
    report = '{"fmax": {"clk": {"achieved": 70.5}}, "utilization": {"LUT4": {"used": 9, "available": 8640}}}'
    made = "*'CLOCKS_PER_BIT 234 snn_serial; synth_gowin -top snn_serial -json snn.json'"
    tools = {
        "yosys": f'case "$*" in *--version|{made}) echo yosys;; *) exit 3;; esac',
        "nextpnr-himbaechel-gowin": f"grep -q IO_LOC tang_nano_9k.cst && echo '{report}' >1.json",
        "gowin_pack": '[ "$*" = "1.cfg -d GW1N-9C -o snn.fs" ] && echo bits >snn.fs',
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    placed = synthesise(folder, "gw1nr-9", seeds=(1,))
    assert (placed.clock_hz, placed.used["cells"], placed.used["ram_blocks"]) == (70.5e6, 9, 0)
    assert Path(placed.bitstream) == folder / "snn.fs"
    assert (folder / "snn.fs").read_text() == "bits\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    ("board", "device", "clocks_per_bit"),
    [("icebreaker", "up5k", 104), ("ulx3s", "ecp5-85f", 217), ("tang_nano_9k", "gw1nr-9", 234)],
)
def test_make_packs_for_each_board(board: str, device: str, clocks_per_bit: int, folder: Path, tmp_path: Path) -> None:
    """Stand-ins for pip's tools note how they are called: as by `synthesise`, with the board's pins and clock."""
    flow = FLOWS[device]
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("yosys", flow.place[0], flow.pack[0]):
        path = tools / (name if name == "gowin_pack" else f"yowasp-{name}")
        path.write_text(f'#!/bin/sh\necho "$0 $*" >>{tmp_path}/calls\n')
        path.chmod(0o755)
    for program in ("sed", "sh"):
        (tools / program).symlink_to(str(shutil.which(program)))
    (folder / "snn_defines.vh").write_text(f"// device: {device}\n")  # makes its board the default
    call = [str(shutil.which("make")), "bitstream"]
    subprocess.run(call, cwd=folder, capture_output=True, check=True, env={"PATH": str(tools)})
    yosys, place, pack = (tmp_path / "calls").read_text().splitlines()
    assert f"{flow.synth} -top snn_serial -json" in yosys
    assert clocks_per_bit == 104 or f"chparam -set CLOCKS_PER_BIT {clocks_per_bit} snn_serial" in yosys
    shared = [word for word in flow.place[1:] if not word.startswith(("--freq", "--timing", "--lpf-allow", "cst="))]
    assert set(shared) - {"40", "120", "80"} <= set(place.split())
    assert [path.suffix for path in (folder / "boards").iterdir() if f"boards/{path.name}" in place] != []
    assert all(word in pack.split() for word in flow.pack[1:])


def test_a_missing_tool_is_named_before_any_tool_runs(folder: Path, tmp_path: Path) -> None:
    """Synthesis ran for a minute before make missed nextpnr, without a remedy."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "yosys").write_text(f"#!/bin/sh\necho called >{tmp_path}/calls\n")
    (tools / "yosys").chmod(0o755)
    (tools / "sh").symlink_to(str(shutil.which("sh")))
    call = [str(shutil.which("make")), "bitstream", "BOARD=tang_nano_9k"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False, env={"PATH": str(tools)})
    assert done.returncode == 2
    assert "nextpnr-himbaechel-gowin: expected on the PATH; found no such program" in done.stderr
    assert "pip install 'stl-deploy[fpga]'" in done.stderr
    assert not (tmp_path / "calls").exists()


def test_a_board_without_pins(folder: Path) -> None:
    done = subprocess.run(["make", "bitstream", "BOARD=arty"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "BOARD: expected one of icebreaker ulx3s tang_nano_9k; found arty" in done.stderr


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    program, x = network()
    second = replace(program.inputs[0], name="second")
    two = replace(program, nodes=(program.nodes[0], second, *program.nodes[1:]))
    with pytest.raises(
        UnsupportedError, match="several inputs or outputs; train with one input and one output, or export to onnx"
    ):
        VerilogFormat().write(two, tmp_path / "v", VerilogOptions(x=x))
    assert not (tmp_path / "v").exists()


def test_energy_is_a_range_of_up5k_alone() -> None:
    """24,000 clocks are 1 ms: 1.219 V x 1,162 uA and 12.05 mW of it."""
    energy = energy_range("up5k", 24_000, 30e6)
    assert energy is not None
    assert energy == pytest.approx((1.416478e-6, 12.05e-6))
    assert energy_range("up5k", 24_000, 23e6) is None
    assert energy_range("ecp5-25f", 24_000, 90e6) is None


@pytest.mark.skipif(shutil.which("yosys") is None or shutil.which("nextpnr-ice40") is None, reason="no yosys, nextpnr")
@pytest.mark.slow
def test_a_small_network_is_placed_and_routed(tmp_path: Path) -> None:
    program = Builder((3,)).linear("fc", RNG(0).normal(0, 1, (2, 3))).lif("a", 1.0).program()
    x = (RNG(1).random((2, 2, 3)) < 0.5).astype(F)
    for family, device in zip(FAMILIES, ("up5k", "ecp5-25f"), strict=True):
        VerilogFormat().write(program, tmp_path / family, VerilogOptions(x=x, device=device))
        _, design = read_folder(tmp_path / family)
        run_after, _ = after_synthesis(design, family).run(x, simulator="iverilog", design=NETLIST)
        np.testing.assert_array_equal(run_after.y, simulate(design.plan.graph, x).y)
    _, design = read_folder(tmp_path / "ice40")
    found = synthesise(tmp_path / "ice40", "up5k", seeds=(1,))
    assert 100 < found.used["cells"] < 2500
    assert found.used["ram_blocks"] == ram_blocks(design.plan, DEVICES["up5k"])
    assert found.used["single_port_rams"] == loaded_blocks(design.plan, DEVICES["up5k"])[0] == 1
    assert found.clock_hz > 10e6
    assert Path(found.bitstream).stat().st_size > 100_000


def _pooled(first: str = "", *, last: str = "neurons", **neuron: Any) -> Any:
    """A max pool: of weights, of neurons, or of an average; neurons, weights or nothing read it."""
    build = Builder((1, 4, 4)).conv("c", np.ones((2, 1, 3, 3)), np.ones(2), ((1, 1), (1, 1)))
    if first:
        build.lif("first", 1.0, beta=None)
    if first == "average":
        build.nodes.append(Pool(kernel=(1, 1), stride=(1, 1), padding=((0, 0), (0, 0)), divisor=1,
                                input_shape=build.shape, **build._common("average", build.shape)))  # fmt: skip
    sizes = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "input_shape": build.shape}
    build.nodes.append(MaxPool(**sizes, **build._common("pool", (2, 2, 2))))
    if last == "neurons":
        build.lif("a", **{"theta": 1.0, "beta": None, **neuron})
    return build.flatten("flat").linear("fc", np.ones((2, 8))).lif("b", 1.0).program()


POOLED = {
    "sums": (_pooled(), []),
    "sums, counted": (_pooled(multi_spike=True, cap=3), []),
    "sums, a threshold per channel": (_pooled(theta=np.array([1, 2], F).reshape(2, 1, 1)), []),
    "sums, a threshold per pixel": (_pooled(theta=np.arange(1, 9, dtype=F).reshape(2, 2, 2)), ["pool"]),
    "sums, neurons with memory": (_pooled(beta=0.5), ["pool"]),
    "sums, weights": (_pooled(last="weights"), ["flat", "fc", "pool"]),
    "spikes": (_pooled("neurons", last="weights"), []),
    "averages": (_pooled("average", last="weights"), ["pool"]),
}


@pytest.mark.parametrize("case", POOLED)
def test_check_refuses_the_max_pools_that_export_refuses(case: str, tmp_path: Path) -> None:
    program, nodes = POOLED[case]
    x = RNG(0).integers(0, 2, (2, 3, 1, 4, 4)).astype(F)
    errors = {finding.node: finding.slug for finding in VerilogFormat().check(program) if finding.severity == "error"}
    assert set(errors) == set(nodes)
    if not nodes:
        VerilogFormat().write(program, tmp_path / "v", VerilogOptions(x=x))
        return
    assert errors["pool"] == "max-pool"
    with pytest.raises(UnsupportedError) as raised:
        VerilogFormat().write(program, tmp_path / "v", VerilogOptions(x=x))
    assert raised.value.slug in errors.values()


@pytest.mark.parametrize("decay", [None, F(0.5)])
@pytest.mark.parametrize("reset", ["value", "subtract", "subtract_delayed", "value_delayed"])
def test_check_refuses_the_counts_that_export_refuses(reset: Any, decay: Any, tmp_path: Path) -> None:
    """Each spike of a count takes θ off at once; without memory only a late reset acts."""
    weight = np.eye(4, 3, dtype=F) * F(1.5)
    fc = Linear(name="fc", shape=(4,), operands=(Operand("in"),), weight=weight, bias=None, input_shape=(3,))
    own = {"decay": decay, "threshold": F(0.5), "multi_spike": True, "cap": 7, "reset": reset}
    count = Neuron(name="n", shape=(4,), operands=(Operand("fc"),), **own)
    ends = Input(name="in", shape=(3,), operands=()), Output(name="out", shape=(4,), operands=(Operand("n"),))
    program = Program((ends[0], fc, count, ends[1]), 1e-4)
    slugs = [finding.slug for finding in VerilogFormat().check(program) if finding.severity == "error"]
    held = reset == "subtract" or (decay is None and reset == "value")
    assert slugs == ([] if held else ["several-spikes"])
    x = RNG(0).integers(0, 2, (4, 3, 3)).astype(F)
    if held:
        VerilogFormat().write(program, tmp_path / "v", VerilogOptions(x=x))
    else:
        with pytest.raises(UnsupportedError):
            VerilogFormat().write(program, tmp_path / "v", VerilogOptions(x=x))


@pytest.mark.parametrize("steps", [255, 256])
def test_a_delay_that_is_too_long_is_refused_by_the_check_already(steps: int) -> None:
    """Delays of nodes and of layers behind each other add up to 255 steps at most between neurons."""
    late = bare(nir.Delay, delay=np.full((3,), (steps - 100) * 1e-4, F))
    later = bare(nir.Delay, delay=np.full((3,), 100 * 1e-4, F))
    program = lower(chain((3,), late, nir.Linear(np.eye(3, dtype=F)), later, lif((3,), theta=1.0), later))
    errors = [finding for finding in VerilogFormat().check(program) if finding.severity == "error"]
    assert [(finding.node, finding.slug) for finding in errors] == ([("n3", "late")] if steps > 255 else [])
    x = np.ones((2, 1, 3), F)
    if errors:
        with pytest.raises(UnsupportedError, match="it reads 256 steps late: expected at most 255"):
            make_plan(choose(program, x).graph)
    else:
        make_plan(choose(program, x).graph)
