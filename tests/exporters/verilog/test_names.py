"""Names of an export's modules and files: several networks in one design, from wherever their files stand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.verilog.folder import read_folder, write_folder
from stl_deploy.exporters.verilog.render import PREFIX, SHARED, decision_of, render
from stl_deploy.exporters.verilog.simulator import Simulation, input_text, simulators
from stl_deploy.exporters.verilog.target import VerilogFormat, VerilogOptions
from stl_deploy.graph.readout import Readout
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import NAME, About, read_integers, write_integers
from tests.exporters.verilog.test_decide import network
from tests.exporters.verilog.test_graphs import cheap, differing

BENCH = Path(__file__).with_name("tb_two.v")
needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
MODULE = re.compile(r"^module (\w+)", re.M)


def exported(design: Simulation, x: Any, folder: Path, prefix: str) -> Simulation:
    """A folder of a design under a prefix, read back."""
    write_folder(design.plan.graph, design.plan, About(prefix=prefix), folder, x)
    return read_folder(folder)[1]


@needs_icarus
def test_two_networks_run_in_one_design(tmp_path: Path) -> None:
    """The files of both stand in folders of their own, and one engine serves both."""
    ready = ((design, x) for _, design, x in cheap(0, 40) if simulate(design.plan.graph, x).y.any())
    (first, first_x), (second, second_x) = next(ready), next(ready)
    pairs = (("a", "kws", first, first_x), ("b", "snn", second, second_x))
    sources, sizes, expected = [BENCH], [], {}
    for at, prefix, design, x in pairs:
        (tmp_path / "ip").mkdir(exist_ok=True)
        folder = tmp_path / "ip" / prefix
        plan = exported(design, x, folder, prefix).plan
        (tmp_path / f"{at}.txt").write_text(input_text(x, int(np.prod(plan.graph.output.shape))))
        sources += [folder / f"{prefix}{end}.v" for end in ("", "_tables", "_weights")]
        sizes += [
            f"-Ptb_two.{at.upper()}_{end}={bits}"
            for end, bits in (("IN", plan.widths.input), ("OUT", plan.widths.output))
        ]
        expected[at] = simulate(plan.graph, x).y.swapaxes(0, 1).reshape(-1).tolist()
    assert (tmp_path / "ip/kws/snn_engine.v").read_bytes() == (tmp_path / "ip/snn/snn_engine.v").read_bytes()
    sources.append(tmp_path / "ip/kws/snn_engine.v")
    command = ["iverilog", "-g2005", "-Wall", *sizes, "-o", "s.vvp", "-s", "tb_two", *map(str, sources)]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert not [line for line in said.stderr.splitlines() if "tb_two" not in line]
    subprocess.run(["vvp", "-n", "s.vvp"], cwd=tmp_path, check=True, capture_output=True)
    for at, values in expected.items():
        assert [int(line) for line in (tmp_path / f"{at}_out.txt").read_text().split()] == values


def test_two_exports_share_only_the_engine_s_modules() -> None:
    plan, _ = network(2)
    files = [render(plan, About(prefix=prefix, readout=Readout("sum", 2))) for prefix in ("kws", "snn")]
    assert decision_of(plan, About(readout=Readout("sum", 2))) is not None
    assert {name for name in files[0] if name in files[1]} == {*SHARED, "tb.v", "Makefile", *(
        name for name in files[0] if name.startswith("boards/")
    )}  # fmt: skip
    own = [
        {module for name, text in one.items() if name not in SHARED for module in MODULE.findall(text)} for one in files
    ]
    assert own[0] == {"kws", "kws_tables", "kws_weights", "kws_serial", "kws_class", "tb"}
    assert own[0] & own[1] == {"tb"}


@needs_icarus
def test_a_named_export_simulates_from_its_folder(tmp_path: Path) -> None:
    _, design, x = cheap(0, 1)[0]
    named = exported(design, x, tmp_path / "v", "kws_2")
    assert {path.name for path in (tmp_path / "v").glob("*.hex")} == {
        f"kws_2_{name}.hex" for name in ("weights", "rows", "columns", "row_taps", "column_taps")
    }
    assert differing(named, x, simulator="iverilog") == 0


@pytest.mark.skipif(shutil.which("make") is None or "iverilog" not in simulators(), reason="no make, no iverilog")
def test_make_sim_of_a_named_export_in_a_folder_with_a_space(tmp_path: Path) -> None:
    """Verilator's makefiles fail there; Icarus Verilog runs it."""
    _, design, x = cheap(0, 1)[0]
    exported(design, x, tmp_path / "my net", "kws")
    done = subprocess.run(["make", "sim"], cwd=tmp_path / "my net", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["2kws", "a b", "wire", "logic", "snn_engine", "tb", "", "a" * 33])
def test_names_that_no_module_can_have(name: str) -> None:
    with pytest.raises(InputError, match=r"name: .*; choose another name, as name="):
        VerilogOptions(name=name)


def test_a_prefix_from_a_file_is_not_trusted(tmp_path: Path) -> None:
    _, design, x = cheap(0, 1)[0]
    exported(design, x, tmp_path / "v", PREFIX)
    graph, _ = read_integers(tmp_path / "v" / NAME)
    write_integers(graph, About(prefix="../x"), tmp_path / "v" / NAME)
    with pytest.raises(InputError, match=r"integers.npz: name: expected an identifier.*found '../x'"):
        VerilogFormat().load(tmp_path / "v")


@pytest.mark.skipif(shutil.which("yosys") is None, reason="yosys is not installed")
def test_yosys_reads_the_plain_files(tmp_path: Path) -> None:
    """Without -defer: an engine that no network has set up reads no file."""
    _, design, x = cheap(0, 1)[0]
    named = exported(design, x, tmp_path / "v", "kws")
    script = f"read_verilog {' '.join(named.design)}; hierarchy -check -top kws; proc"
    done = subprocess.run(["yosys", "-p", script], cwd=tmp_path / "v", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
