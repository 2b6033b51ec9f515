"""What the shell is told after <TAB>, and help: names and options without loading torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stl_deploy.energy.prices.load import list_prices
from stl_deploy.exporters.nir.dialect import PRESETS
from stl_deploy.exporters.targets import registry

ASK = "import sys\nfrom stl_deploy.cli import main\ntry:\n    main([])\nfinally:\n    assert 'torch' not in sys.modules"


def _told(line: str) -> list[str]:
    asked = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "_STL_DEPLOY_COMPLETE": "complete_bash",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("stl-deploy export x.nir --to ", [*registry().formats]),
        ("stl-deploy check x.nir --target ", [*registry().formats, *registry().checks]),
        ("stl-deploy simulate x.nir --backend l", [name for name in registry().runners if name.startswith("l")]),
        ("stl-deploy verify x.nir --against ", [*registry().runners]),
        ("stl-deploy show x.nir --dialect ", [*PRESETS]),
        ("stl-deploy energy x.nir --prices ", [one.name for one in list_prices()]),
        ("stl-deploy energy x.nir --input-coding ", ["spikes", "graded", "analog"]),
        ("stl-deploy witness install b", ["brian2"]),
        ("stl-deploy train dig", ["digits"]),
    ],
)
def test_completed(line: str, expected: list[str]) -> None:
    assert expected
    assert _told(line) == expected


def test_help_loads_neither_torch_nor_nir() -> None:
    code = (
        "import sys, typer\n"
        "from stl_deploy.cli.app import app\n"
        "group = typer.main.get_command(app)\n"
        "for name in group.commands:\n"
        "    command = group.get_command(None, name)\n"
        "    assert command.get_help(command.make_context(name, [], resilient_parsing=True))\n"
        "assert not {'torch', 'nir'} & set(sys.modules), name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
