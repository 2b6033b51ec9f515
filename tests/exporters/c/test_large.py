"""Large networks in C: millions of numbers are laid out as before, and rendered once."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import stl_deploy as stl
from stl_deploy.exporters.c import compiler, target
from stl_deploy.exporters.c import render as rendering
from stl_deploy.exporters.c.render import literals


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=90))
def test_numbers_are_broken_into_lines_as_textwrap_does(values: list[int]) -> None:
    text = ", ".join(map(str, values))
    wrapped = textwrap.fill(text, 110, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    assert literals(np.array(values)) == wrapped


@given(st.integers(0, 2**32 - 1), st.sampled_from([(-128, 127), (0, 1), (-(2**15), 2**16 - 1), (100, 127)]))
def test_lines_of_a_long_array_fit_and_hold_its_numbers(seed: int, limits: tuple[int, int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "_AT_ONCE", 200)
        values = np.random.default_rng(seed).integers(*limits, size=900, endpoint=True)
        lines = literals(values).split("\n")
    assert all(len(line) <= 110 and re.fullmatch("    -?[0-9]+(, -?[0-9]+)*,", line) for line in lines[:-1])
    assert [int(number) for number in "".join(lines).split(",")] == values.tolist()
    assert sum(len(line) < 95 for line in lines) <= 5  # the last of each part


def test_a_folder_is_rendered_once_and_still_held_to_its_integers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    render = target.render_plan
    monkeypatch.setattr(target, "render_plan", lambda *given: (calls.append(1), render(*given))[1])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), stl.LIF((6,), threshold=0.2))
    net = stl.capture(model, (torch.rand(6, 4, 4) < 0.5).float())
    net.export(tmp_path / "a", to="c")
    assert len(calls) == 1
    code = tmp_path / "a" / "net.c"
    text = code.read_text()
    code.write_text(text.replace("int", "long", 1))
    with pytest.raises(stl.InputError, match="expected what stl-deploy makes of integers"):
        target.read_folder(tmp_path / "a")
    code.write_text(text)
    target._made.clear()  # as another process reads it
    target.read_folder(tmp_path / "a")
    assert len(calls) == 2


class Frames(nn.Sequential):
    """Layers over all steps at once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def listed(kind: str, count: int, numbers: str, after: str = "") -> str:
    return f"static const {kind} some_weight[{count}]{after} = {{ /* by input */\n    {numbers}\n}};\n"


@given(
    st.sampled_from(["int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t"]).flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            st.lists(st.integers(int(np.iinfo(kind[:-2]).min), int(np.iinfo(kind[:-2]).max)), min_size=1, max_size=90),
        )
    )
)
def test_tables_that_are_taken_out_hold_the_numbers_of_the_text(drawn: tuple[str, list[int]]) -> None:
    kind, values = drawn
    text = "int before;\n" + listed(kind, len(values), literals(np.array(values)).strip()) + "int behind;\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "LARGE", 1)
        taken = compiler.take_tables(text)
    assert taken is not None
    assert np.frombuffer(taken.data, kind[:-2]).tolist() == values
    label = '__asm__("stl_table_0")'
    assert (
        taken.text
        == f"int before;\nextern const {kind} some_weight[{len(values)}] {label}; /* by input */\nint behind;\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        listed("int8_t", 3, "1, 010, 2"),  # octal in C
        listed("int8_t", 3, "1, 2"),  # C adds a 0
        listed("int8_t", 2, "1, 2, 3"),
        listed("int8_t", 2, "1, 128"),
        listed("uint8_t", 2, "1, -1"),
        listed("int8_t", 2, "1, 2,"),
        listed("int32_t", 2, "1, 2147483648"),
        listed("uint8_t", 2, "1, 18446744073709551617"),  # 1 in 64 bits
        listed("int8_t", 3, "1, -010, 2"),
        listed("int8_t", 3, "1, 2, 00"),
        listed("int8_t", 3, "1, -0, 2"),
        listed("int8_t", 3, "01, 2, 3"),
        listed("int8_t", 3, "1,2, 3"),
        listed("int8_t", 3, "1, , 3"),
        listed("int8_t", 2, "1, 99999999999999999999999"),
        listed("int8_t", 3, "1, - 2, 3"),
        listed("int8_t", 2, "1, +2"),
        listed("int8_t", 2, "1, 2 /* or 3 */"),
        listed("int8_t", 2, "1, 0x2"),
        listed("int8_t", 2, "1 2, 3"),
        listed("float", 2, "1, 2"),
        listed("int8_t", 2, "1, 2", " STL_OTHER"),
        "static const int8_t some_weight[2] = { /* none */\n};\n",
        listed("int8_t", 2, ""),
        "static const int8_t some_weight[2] = { /* none */\n\n};\n",
        listed("int8_t", 2, "\n"),
    ],
)
def test_what_is_no_plain_list_of_numbers_is_left_to_the_compiler(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "LARGE", 1)
    assert compiler.take_tables("int before;\n" + text) is None


@pytest.mark.skipif(compiler.find_compiler() is None, reason=compiler.MISSING)
def test_tables_as_data_run_as_the_text_that_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = (torch.rand(6, 4, 2, 9, 9) < 0.5).float()
    model = nn.Sequential(
        Frames(nn.Conv2d(2, 16, 3)),
        stl.LIF(threshold=0.3),
        nn.Flatten(2),
        nn.Linear(784, 5),
        stl.LIF((5,), threshold=0.1),
    )
    stl.capture(model, x).export(tmp_path / "a", to="c")
    given = x.numpy().astype(np.int32)
    taken = list[bytes]()
    take = compiler.take_tables
    monkeypatch.setattr(compiler, "take_tables", lambda text: (out := take(text)) and (taken.append(out.data), out)[1])
    _, program = target.read_folder(tmp_path / "a")
    plain = program.run(given, record=True)
    assert not taken
    monkeypatch.setattr(compiler, "LARGE", 1)
    data = program.run(given, record=True)
    assert taken
    assert np.array_equal(plain.y, data.y)
    assert plain.spikes.keys() == data.spikes.keys()
    assert all(np.array_equal(plain.spikes[name], data.spikes[name]) for name in plain.spikes)

    code = tmp_path / "a" / "net.c"
    text = code.read_text()
    edited = re.sub(r"(bias\[5\] = \{ [^\n]*\n +)(-?\d+)", r"\g<1>-2000", text, count=1)
    assert edited != text
    code.write_text(edited)
    _, program = target.read_folder(tmp_path / "a", trust=True)
    assert not np.array_equal(program.run(given).y, plain.y)  # what runs is the text, not the integers beside it
    monkeypatch.setattr(compiler, "_assembled", lambda *given: None)  # as where no assembler takes them
    code.write_text(text)
    _, program = target.read_folder(tmp_path / "a")
    assert np.array_equal(program.run(given).y, plain.y)
