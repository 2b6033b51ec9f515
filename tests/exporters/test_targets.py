"""The registry of targets: names, refusals, options, and how an artifact's format is told."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from stl_deploy._util import foreign
from stl_deploy._util.console import Console
from stl_deploy.data import registry as sources_of_data
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters import targets
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.targets import Options, find_format, find_runner, format_of, make_options, register_target
from stl_deploy.graph.program import Input, Operand, Output, Program
from stl_deploy.graph.run import run
from stl_deploy.pipeline.artifacts import ready
from stl_deploy.pipeline.spiking_graph import SpikingGraph
from stl_deploy.verbs import listings
from stl_deploy.verbs.checking import show
from stl_deploy.verbs.listings import doctor


@dataclass(frozen=True, kw_only=True, eq=False)
class Knobs(Options):
    flash: str | None = None
    row_bits: int = 8


class Text:
    name, description, suffix, folder, options = "text", "words", ".words", None, Knobs

    def write(self, program: Any, path: Path, options: Knobs) -> dict[str, Any]:
        return {}

    def load(self, path: Path) -> Any: ...

    def check(self, program: Any) -> tuple[()]:
        return ()


class Book(Text):
    name, suffix, folder = "book", None, "index.words"


class Talker:
    name, description, label, reads, options, agrees_with = "talker", "says", "measured", ("text",), Options, None

    @classmethod
    def available(cls) -> None: ...

    def run(self, x: Any, record: bool = False) -> Any: ...


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    targets.registry.cache_clear()
    targets._known.cache_clear()
    yield
    targets.registry.cache_clear()
    targets._known.cache_clear()


def test_what_is_registered_is_found_by_its_name_and_kind() -> None:
    text = Text()
    register_target(text)
    register_target(Talker)
    assert find_format("text") is text
    assert find_runner("talker") is Talker
    register_target(text)  # the same again is no conflict


def test_a_name_is_taken_once_in_its_kind() -> None:
    register_target(Text())
    with pytest.raises(InputError, match="found 'text', which is registered; rename it"):
        register_target(Text())
    with pytest.raises(InputError, match="a Format \\(an object\\) or a Runner \\(a class\\); found <class"):
        register_target(Text)
    with pytest.raises(InputError, match="found 3"):
        register_target(3)


class Brief:
    name, description, suffix = "brief", "no more than a Format must say", ".brief"

    def check(self, program: Any) -> tuple[()]:
        return ()

    def write(self, program: Any, path: Path, options: Any) -> None:
        path.write_text(program.nodes[0].name)

    def load(self, path: Path) -> Any:
        return Shorthand(path, None)


class Shorthand:
    name, description = "shorthand", "no more than a Runner must say"
    program: Any = None

    def __init__(self, network: Any, options: Any) -> None:
        """Runs the last Program it was given."""
        Shorthand.program = network if isinstance(network, Program) else self.program

    @classmethod
    def available(cls) -> None: ...

    def run(self, x: Any, record: bool = False) -> Any:
        return run(self.program, x, record=[node.name for node in self.program.spiking] if record else ())


def test_a_target_may_leave_out_what_it_does_not_use(tmp_path: Path) -> None:
    register_target(Brief())
    register_target(Shorthand)
    one = np.ones(2, np.float32)
    neurons = nir.IF(r=one, v_threshold=one / 2, v_reset=one * 0)
    net = SpikingGraph(nir.NIRGraph.from_list(nir.Linear(np.eye(2, dtype=np.float32)), neurons), Dialect(dt=1.0))
    x = np.ones((3, 2, 2), np.float32)
    assert net.simulate(x, backend="shorthand").y.all()
    net.export(tmp_path / "net.brief", x=x)
    found = net.verify(tmp_path / "net.brief", x).report.as_dict()["runs"][0]
    assert (found["required"], found["label"], found["differing"]) == (False, "simulated", 0)
    net.export(tmp_path / "net.onnx", x=x)


def test_layers_that_a_target_cannot_tell_are_not_shown(tmp_path: Path) -> None:
    register_target(Brief())
    (tmp_path / "net.brief").write_text("x")
    with pytest.raises(
        InputError, match=r"net\.brief: expected a target whose layers can be shown; found brief; use verify"
    ):
        show(tmp_path / "net.brief")


def test_a_target_that_lacks_or_misspells_what_it_must_say_is_refused() -> None:
    with pytest.raises(InputError, match="expected name, description, run, available; found no available; add them"):
        register_target(type("Mute", (), {"name": "mute", "description": "", "run": None}))
    with pytest.raises(InputError, match='expected agrees_with "reference", "loihi", "xylo" or None; found \'lohi\''):
        register_target(type("Off", (Talker,), {"agrees_with": "lohi"}))
    with pytest.raises(InputError, match="expected a suffix, or a folder; found both or neither; give one"):
        register_target(type("Placeless", (Text,), {"suffix": None})())


def test_an_unknown_name_is_told_what_there_is() -> None:
    register_target(Text())
    with pytest.raises(InputError, match=r"expected a format: .*text; found 'txet' \(did you mean 'text'\?\)"):
        find_format("txet")
    with pytest.raises(InputError, match=r"expected a backend: .*found 'text'"):
        find_runner("text")


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, **modules: str) -> None:
    """Packages with one entry point each, as an installer leaves them: ``NAME = "NAME:TARGETS"``."""
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
        about = folder / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}:TARGETS\n")
    monkeypatch.syspath_prepend(str(folder))


GOOD = """
class Talker:
    name, description, reads = "talker", "says", ()
    @classmethod
    def available(cls): return None
    def run(self, x, record=False): return None
TARGETS = [Talker]
"""
BAD = {
    "raises": ("raise ImportError('no words')", "ImportError: no words"),
    "exits": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "ends_at_once": ("import os; os._exit(0)", "its import ends Python with exit code 0"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its import ends Python with signal 11"),
    "sleeps": ("import time; time.sleep(600)", "its import takes over 5 s"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_package_that_cannot_be_imported_hides_no_other_target(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ended Python ended every verb, with exit code 0 and nothing written."""
    code, reason = BAD[bad]
    monkeypatch.setattr(foreign, "_SECONDS", 5.0 if bad == "sleeps" else 60.0)
    installed(tmp_path, monkeypatch, "stl_deploy.targets", bad=code, **({} if bad == "sleeps" else {"good": GOOD}))
    with pytest.raises(InputError, match=rf"'bad' is installed, but bad:TARGETS cannot be loaded \({reason}\)"):
        find_format("bad")
    if bad != "sleeps":
        assert find_runner("talker").description == "says"
    said = StringIO()
    listings.targets(say=Console(stream=said))
    assert "warning: target 'bad': " in " ".join(said.getvalue().split())


def test_what_is_ours_imports_no_other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "stl_deploy.targets", odd="TARGETS = []")
    assert find_runner("reference").name == "reference"
    assert find_runner("c").name == "c"
    assert find_format("nir").name == "nir"
    made = targets.format_of(tmp_path / "net.onnx")
    assert made is not None
    assert "odd" not in sys.modules


@pytest.mark.parametrize("bad", ["exits", "ends_at_once"])
def test_a_dataset_s_package_that_cannot_be_imported_blocks_no_other(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, reason = BAD[bad]
    installed(tmp_path, monkeypatch, "stl_deploy.datasets", bad=code)
    with pytest.raises(InputError, match=rf"'bad' is installed, but bad:TARGETS cannot be loaded \({reason}\)"):
        sources_of_data.source("bad")
    assert sources_of_data.source("npz").summary
    said = StringIO()
    assert "npz" in {row["name"] for row in listings.datasets(say=Console(stream=said))}
    assert "warning: the dataset 'bad' is installed, but" in " ".join(said.getvalue().split())


@pytest.mark.parametrize("error", [KeyError("driver"), SystemExit(0)])
def test_a_runner_that_cannot_say_whether_it_can_run_cannot(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object) -> None:
        raise error

    monkeypatch.setattr(Talker, "available", raises)
    register_target(Talker)
    said = f"its available\\(\\) raises {type(error).__name__}"
    with pytest.raises(ToolError, match=f"talker cannot run here: {said}"):
        ready(Talker(), None)  # type: ignore[arg-type]
    assert said.replace("\\", "") in doctor()["backends"]["talker"]


def test_an_artifact_is_told_by_its_suffix_or_by_the_file_in_a_folder(tmp_path: Path) -> None:
    text, book = Text(), Book()
    register_target(text)
    register_target(book)
    assert format_of(tmp_path / "a.words") is text
    assert format_of(tmp_path / "a.other") is None
    folder = tmp_path / "folder.words"
    folder.mkdir()
    (folder / "index.words").touch()
    assert format_of(folder) is book


def test_options_are_those_of_the_target_and_no_others() -> None:
    made = make_options(Text(), {"flash": "4K", "row_bits": None}, origin={"source": "a"})
    assert (made.flash, made.row_bits, made.origin) == ("4K", 8, {"source": "a"})
    register_target(Text())
    with pytest.raises(InputError, match="expected text for option 'row_bits'; found talker; leave it out"):
        make_options(Talker, {"row_bits": 2})
    with pytest.raises(InputError, match="expected options of text: flash, row_bits; found 'say'"):
        make_options(Text(), {"say": 2})


def test_nir_is_written_from_the_program_where_no_graph_is_given(tmp_path: Path) -> None:
    nodes = (Input(name="in", shape=(2,), operands=()), Output(name="out", shape=(2,), operands=(Operand("in"),)))
    program = Program(nodes, 1e-4, {"dialect": {"dt": 1e-4}})
    find_format("nir").write(program, tmp_path / "net.nir", make_options(find_format("nir"), {}))
    assert [node.name for node in lower(read_nir(tmp_path / "net.nir")).nodes] == ["in", "out"]


def test_a_target_asked_for_by_name_is_imported_alone() -> None:
    code = (
        "import sys; from stl_deploy.exporters.targets import find_format; find_format('nir')\n"
        "print(*(name for name in ('nir', 'onnx') if f'stl_deploy.exporters.{name}.target' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["nir"]


def test_a_target_is_the_same_whether_the_others_are_imported_or_not() -> None:
    known = targets.registry()
    assert {name: find_format(name) for name in known.formats} == known.formats
    assert {name: find_runner(name) for name in known.runners} == known.runners
