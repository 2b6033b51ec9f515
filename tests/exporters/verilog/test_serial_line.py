"""The serial line end to end: a simulation of snn_serial.v, and the host's side against a stand-in board."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.verilog import board
from stl_deploy.exporters.verilog.board import run_on_board, step_bytes, values_of
from stl_deploy.exporters.verilog.devices import DEVICES
from stl_deploy.exporters.verilog.memories import flash_image, memories_of
from stl_deploy.exporters.verilog.plan import Plan
from stl_deploy.exporters.verilog.render import PREFIX, render
from stl_deploy.exporters.verilog.simulator import Simulation
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About
from tests.exporters.verilog.test_graphs import cheap

BENCH, FLASH = Path(__file__).with_name("tb_serial.v"), Path(__file__).with_name("flash_model.v")


def test_values_as_bytes() -> None:
    """300 is 0x012c and -2 is 0xfffe in two bytes."""
    assert step_bytes(np.array([300, -2], np.int32), 10, first=True) == bytes([1, 0x2C, 0x01, 0xFE, 0xFF])
    assert step_bytes(np.array([1], np.int32), 2, first=False) == bytes([0, 1])
    assert values_of(bytes([0x2C, 0x01, 0xFE, 0xFF]), 10).tolist() == [300, -2]


LONGER = [pytest.param(*case, marks=pytest.mark.nightly) for case in ((0, False), (0, True), (5, True))]


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
@pytest.mark.parametrize(("index", "loaded"), [(3, False), (3, True), *LONGER])
def test_outputs_come_back_over_the_serial_line(index: int, loaded: bool, tmp_path: Path) -> None:
    """Loaded: with the weights from a flash, as snn_flash.v reads them."""
    _, design, x = cheap(0, 40)[index]
    plan, (steps, samples) = design.plan, x.shape[:2]
    image = bytes(1)
    if loaded:
        plan = replace(plan, device=DEVICES["up5k"])
        design = Simulation(render(plan, About(prefix=PREFIX)), plan)
        image = flash_image(plan, memories_of(plan))
    (tmp_path / "flash.hex").write_text("\n".join(f"{byte:02x}" for byte in image))
    for name, text in design.files.items():
        if "/" not in name:
            (tmp_path / name).write_text(text)
    sent = [
        step_bytes(x[step, sample], plan.widths.input, first=step == 0)
        for sample in range(samples)
        for step in range(steps)
    ]
    (tmp_path / "host.hex").write_text("\n".join(f"{byte:02x}" for one in sent for byte in one))
    y = simulate(plan.graph, x).y
    answer = int(np.prod(plan.graph.output.shape)) * -(-plan.widths.output // 8)
    sizes = {
        "BYTES": sum(map(len, sent)),
        "WANTED": answer * len(sent),
        "STEP": len(sent[0]),
        "ANSWER": answer,
        "FLASH": len(image),
    }
    options = [f"-Ptb_serial.{name}={value}" for name, value in sizes.items()]
    sources = [str(BENCH), str(FLASH), "snn_serial.v", "snn_flash.v", *design.design]
    subprocess.run(
        ["iverilog", "-g2005", *options, "-o", "s.vvp", "-s", "tb_serial", *sources], cwd=tmp_path, check=True
    )
    subprocess.run(["vvp", "-n", "s.vvp"], cwd=tmp_path, check=True, capture_output=True)
    got = bytes(int(line) for line in (tmp_path / "board.txt").read_text().split())
    np.testing.assert_array_equal(values_of(got, plan.widths.output), y.swapaxes(0, 1).reshape(-1))


def _stand_in(line: int, plan: Plan, x: Any, outputs: Any) -> None:
    """Takes steps as they come, and answers with the model's outputs."""
    size, length = -(-plan.widths.output // 8), len(step_bytes(x[0, 0], plan.widths.input, first=True))
    for sample in range(x.shape[1]):
        for step in range(x.shape[0]):
            got = b""
            while len(got) < length:
                got += os.read(line, length - len(got))
            assert got == step_bytes(x[step, sample], plan.widths.input, first=step == 0)
            answer = outputs[step, sample].reshape(-1).astype("<i8").view(np.uint8).reshape(-1, 8)[:, :size]
            os.write(line, answer.tobytes())


def test_the_host_s_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "SECONDS_A_STEP", 200.0)  # the stand-in's thread may have to wait for a core
    _, design, x = cheap(0, 1)[0]
    y = simulate(design.plan.graph, x).y
    ours, theirs = os.openpty()
    answering = threading.Thread(target=_stand_in, args=(ours, design.plan, x, y))
    port = Path(os.ttyname(theirs))
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(run_on_board(design.plan, port, x)))
    asking.start()
    answering.start()
    asking.join()
    np.testing.assert_array_equal(found[0], y)
    os.close(ours)
    os.close(theirs)


def test_a_silent_board_and_what_is_no_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "SECONDS_A_STEP", 0.05)
    _, design, x = cheap(0, 1)[0]
    ours, theirs = os.openpty()
    with pytest.raises(ToolError, match=r"expected \d+ bytes from the board; found 0; load the bitstream"):
        run_on_board(design.plan, Path(os.ttyname(theirs)), x)
    with pytest.raises(InputError, match="baud: expected a rate of serial lines"):
        run_on_board(design.plan, Path(os.ttyname(theirs)), x, baud=12345)
    os.close(ours)
    os.close(theirs)
    with pytest.raises(InputError, match="cannot be opened as a serial line"):
        run_on_board(design.plan, tmp_path / "none", x)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a serial line; found something else"):
        run_on_board(design.plan, tmp_path / "file", x)
