"""Large networks in C: millions of numbers are laid out as before, and rendered once."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import stl_deploy as stl
from stl_deploy.exporters.c import folder
from stl_deploy.exporters.c.render import literals


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=90))
def test_numbers_are_broken_into_lines_as_textwrap_does(values: list[int]) -> None:
    text = ", ".join(map(str, values))
    wrapped = textwrap.fill(text, 110, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    assert literals(np.array(values)) == wrapped


def test_a_folder_is_rendered_once_and_still_held_to_its_integers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    render = folder.render_plan
    monkeypatch.setattr(folder, "render_plan", lambda *given: (calls.append(1), render(*given))[1])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), stl.LIF((6,), threshold=0.2))
    net = stl.capture(model, (torch.rand(6, 4, 4) < 0.5).float())
    net.export(tmp_path / "a", to="c")
    assert len(calls) == 1
    code = tmp_path / "a" / "net.c"
    text = code.read_text()
    code.write_text(text.replace("int", "long", 1))
    with pytest.raises(stl.InputError, match="expected what stl-deploy makes of integers"):
        folder.read_folder(tmp_path / "a")
    code.write_text(text)
    folder._made.clear()  # as another process reads it
    folder.read_folder(tmp_path / "a")
    assert len(calls) == 2
