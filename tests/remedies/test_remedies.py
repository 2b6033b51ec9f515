"""Each sentence names what to do in the interface that the reader uses, and doing it leads on."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

import pytest

import stl_deploy
from stl_deploy._util.remedies import command_line
from stl_deploy.cli import main
from stl_deploy.errors import StlDeployError
from tests.remedies.capture_cases import CAPTURES
from tests.remedies.cases import REMEDIES as NETWORKS
from tests.remedies.layer_cases import LAYERS
from tests.remedies.room import Remedy, Room
from tests.remedies.run_cases import RUNS
from tests.remedies.tool_cases import TOOLS

REMEDIES = (*NETWORKS, *CAPTURES, *LAYERS, *RUNS, *TOOLS)
ROOT = Path(stl_deploy.__file__).parents[1]
HELPERS = {"option", "named", "verb", "remedy", "energy_again"}
PARAMETERS = {"Option", "Argument"}
"""Of verbs: typer's, which only the command line reads."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+|'stl-deploy [a-z]")
OF_TOOLS = ("exporters/lava/environment.py", "exporters/verilog/s", "exporters/c/program.py", "report/page/svg.py")
"""Modules whose options are those of compilers, of pip and of simulators, and a colour's name."""
NEXT = ("verbs/quantising.py", "runs/train.py", "report/text/", "verbs/joining.py", "verbs/listings.py")
"""Modules that tell the command line's user what may come next; Python's console is quiet."""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return Room(tmp_path_factory.mktemp("remedies"))


def told(remedy: Remedy, room: Room) -> str:
    """What the reader reads: the error, or what is printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(remedy.fail(room))
        except StlDeployError as error:
            return str(error)


@pytest.mark.parametrize("remedy", REMEDIES, ids=[f"{i}-{one.of.split('/')[-1]}" for i, one in enumerate(REMEDIES)])
def test_a_remedy_is_of_the_reader_s_interface_and_leads_on(remedy: Remedy, room: Room) -> None:
    in_python = told(remedy, room)
    assert remedy.python in in_python
    assert not OPTION.search(in_python)
    with command_line():
        assert remedy.cli in told(remedy, room)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        remedy.follow(room)


@pytest.mark.push(5)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "call",
    [
        "fold {analog} --exact-grid --input-grid 8 -o {new}.nir",
        "fold {net} --thresholds weights -o {new}.nir",
        "fold {pooled} --merge-pools -o {new}.nir",
        "export {analog} --to netx --input-grid 8 -o {new}.net",
        "export {net} --to c -o {new}",
        "export {net} --to c --name kws --package arduino -o {new}",
        "energy {net} --input {x}",
        "check {foreign} --dialect spec",
        "check {net} --target xylo --device imu || true",
        "simulate {net} --input {x} --backend loihi -o {new}.npz",
        "prices",
    ],
)
def test_commands_that_remedies_name_go_through(call: str, room: Room) -> None:
    room.pooled.export(room.folder / "pooled.nir")
    files = {"analog": room.analog_file, "net": room.file, "pooled": room.folder / "pooled.nir", "x": room.input}
    arguments, _, may_fail = call.format(foreign=room.foreign, new=room.new("made"), **files).partition(" || ")
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code in ((0, 1) if may_fail else (0,))


def _modules() -> dict[str, ast.Module]:
    found = {}
    for top in ("stl_deploy", "exporters", "energy"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith(("stl_deploy/exporters", "stl_deploy/energy", "stl_deploy/cli/")):
                found[name.removeprefix("stl_deploy/")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def _phrased(module: str, tree: ast.Module) -> set[str]:
    """The functions of a module that ask for options, calls and remedies."""
    found: set[str] = set()
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = [node.names for node in froms if node.module == "stl_deploy._util.remedies"]
    helpers = {alias.name for names in imported for alias in names} & HELPERS

    def walk(node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = child.name if isinstance(child, ast.FunctionDef | ast.ClassDef) else inside
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id in helpers:
                found.add(f"{module}:{name}")
            walk(child, name)

    walk(tree, "")
    return found


def test_every_remedy_is_reached() -> None:
    phrased: set[str] = set()
    for module, tree in _modules().items():
        if module != "_util/remedies.py":
            phrased |= _phrased(module, tree)
    followed = {place for one in REMEDIES for place in one.of.split()}
    assert phrased - followed == set()
    assert followed - phrased == set()


def test_no_sentence_names_an_option_by_itself() -> None:
    """Options and commands come from the helpers, which know the reader's interface."""
    wrong = []
    for module, tree in _modules().items():
        if module.startswith((*OF_TOOLS, *NEXT, "config/options.py", "_util/remedies.py", "verbs/arguments.py")):
            continue
        own: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                own.add(id(node.value))  # docstrings
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in HELPERS | PARAMETERS:
                own |= {id(inner) for inner in ast.walk(node)}
        wrong += [
            f"{module}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in own
            and OPTION.search(node.value)
        ]
    assert wrong == []
