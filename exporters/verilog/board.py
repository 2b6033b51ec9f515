"""Run a board with snn_serial.v on a serial line: send a step's bytes, receive its outputs.

Untested on hardware.
"""

from __future__ import annotations

import os
import select
import termios
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import named
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.verilog.plan import Plan
from stl_deploy.integers.simulate import check_input

SECONDS_A_STEP = 5.0
"""A board that answers later than this is taken for silent."""


def step_bytes(values: NDArray[np.int32], bits: int, *, first: bool) -> bytes:
    """Return the bytes of a step for the board: whether it is a sample's first, then every value, lowest byte first."""
    size = -(-bits // 8)
    parts = values.reshape(-1).astype("<i8").view(np.uint8).reshape(-1, 8)[:, :size]
    return bytes([int(first)]) + parts.tobytes()


def values_of(answer: bytes, bits: int) -> NDArray[np.int32]:
    """Return the signed values of a step's answer."""
    size = -(-bits // 8)
    parts = np.frombuffer(answer, np.uint8).reshape(-1, size).astype(np.int64)
    total = (parts << (8 * np.arange(size))).sum(axis=1)
    signed = np.where(total >= 1 << (8 * size - 1), total - (1 << (8 * size)), total)
    return np.asarray(signed, np.int32)


def run_on_board(
    plan: Plan, port: Path, x: NDArray[Any], *, baud: int = 115200, on_sample: Callable[[int], None] = lambda _: None
) -> NDArray[np.int32]:
    """Return a board's outputs ``[T, B, *shape]`` for integers ``x`` ``[T, B, *shape]``.

    Raises InputError for a port that cannot be opened or a wrong input, ToolError where the board stays silent.
    """
    x = check_input(plan.graph.input, x)
    steps, samples = x.shape[:2]
    shape = plan.graph.output.shape
    count = int(np.prod(shape)) * -(-plan.widths.output // 8)
    y = np.empty((steps, samples, int(np.prod(shape))), np.int32)
    line = _open(port, baud)
    try:
        for sample in range(samples):
            for step in range(steps):
                _send(line, step_bytes(x[step, sample], plan.widths.input, first=step == 0))
                y[step, sample] = values_of(_receive(line, count, port), plan.widths.output)
            on_sample(sample + 1)
    finally:
        os.close(line)
    return y.reshape(steps, samples, *shape)


def _open(port: Path, baud: int) -> int:
    rate = getattr(termios, f"B{baud}", None)
    if rate is None:
        raise InputError(f"{named('baud')}: expected a rate of serial lines, as 115200; found {baud}")
    try:
        line = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(
            f"{port}: cannot be opened as a serial line ({error.strerror}); name the board's port"
        ) from None
    try:
        tty.setraw(line)
        settings = termios.tcgetattr(line)
        settings[4] = settings[5] = rate
        termios.tcsetattr(line, termios.TCSANOW, settings)
        termios.tcflush(line, termios.TCIOFLUSH)
    except termios.error:
        os.close(line)
        raise InputError(f"{port}: expected a serial line; found something else; name the board's port") from None
    return line


def _send(line: int, data: bytes) -> None:
    ends = time.monotonic() + SECONDS_A_STEP + len(data) / 1000
    while data:
        if not select.select([], [line], [], max(0.0, ends - time.monotonic()))[1]:
            raise ToolError("the board's serial line accepts no more bytes; check the port and the baud rate")
        data = data[os.write(line, data) :]


def _receive(line: int, count: int, port: Path) -> bytes:
    data, ends = b"", time.monotonic() + SECONDS_A_STEP + count / 1000
    while len(data) < count:
        if not select.select([line], [], [], max(0.0, ends - time.monotonic()))[0]:
            raise ToolError(
                f"{port}: expected {count} bytes from the board; found {len(data)}; load the bitstream, and check the "
                "port and the baud rate (CLOCKS_PER_BIT of snn_serial.v)"
            )
        data += os.read(line, count - len(data))
    return data
