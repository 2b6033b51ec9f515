"""Artifacts take their place whole, and what else lies there stays."""

from io import StringIO
from pathlib import Path

import nir
import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.errors import InputError, ParityError, ToolError
from stl_deploy.exporters.c.target import CFormat
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.target import Reference
from stl_deploy.exporters.targets import Network, Options, find_format, register_target, registry
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.pipeline.artifacts import SAMPLES, ParityBench, whole_artifact
from tests.graph.nets import chain, lif

C = CFormat()
MARK = C.folder or ""


def _write(path: Path, content: str) -> None:
    (path / "below").mkdir(parents=True)
    for name in (MARK, "below/net.c"):
        (path / name).write_text(content)


def _half(output: Path) -> None:
    with whole_artifact(output, C) as path:
        _write(path, "half")
        path.mkdir()


def test_a_folder_that_is_written_again_keeps_what_the_user_put_there(tmp_path: Path) -> None:
    _write(tmp_path / "c", "old")
    (tmp_path / "c" / "app.c").write_text("mine")
    with pytest.raises(FileExistsError):
        _half(tmp_path / "c")
    assert (tmp_path / "c" / MARK).read_text() == "old"
    with whole_artifact(tmp_path / "c", C) as path:
        _write(path, "new")
    found = {file.relative_to(tmp_path).as_posix(): file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {f"c/{MARK}": "new", "c/below/net.c": "new", "c/app.c": "mine"}


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "app.c").write_text("mine")
    with pytest.raises(InputError, match="found another; name a new one"), whole_artifact(tmp_path, C):
        pass


class Witness(Reference):
    """A simulator of graphs: like the reference, but for what it is told to get wrong."""

    name, reads = "witness", ()
    fails: str | None = None
    flips = 0

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        if self.fails is not None:
            raise ToolError(self.fails)
        found = super().run(x, record)
        for spikes in found.recorded.values():
            spikes.reshape(-1)[: self.flips] = 1 - spikes.reshape(-1)[: self.flips]
        return found


@pytest.mark.parametrize(
    ("flips", "fails", "told"),
    [(0, None, "running 100 of 105 samples on witness"), (2, None, ""), (0, "no room", "witness did not run")],
)
def test_simulators_of_graphs_are_held_to_the_reference_on_the_first_samples(
    flips: int, fails: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Witness, "flips", flips)
    monkeypatch.setattr(Witness, "fails", fails)
    runners = registry().runners
    register_target(Witness)
    try:
        monkeypatch.setattr(registry(), "runners", {"witness": runners.pop("witness")})
        program = lower(chain((3,), lif((3,))))
        bench = ParityBench(program, np.random.default_rng(0).random((4, SAMPLES + 5, 3)).astype(np.float32) * 3)
        said = StringIO()
        bench.witnesses(Console(verbose=True, stream=said), required=True)
    finally:
        monkeypatch.undo()
    assert told in said.getvalue()
    if fails is not None:
        assert bench.runs == []
        return
    (found,) = bench.runs
    assert (found.run, found.compared, found.differing) == ("witness", 4 * SAMPLES * 3, flips)
    if flips:
        with pytest.raises(ParityError, match="witness"):
            bench.report.require()
    else:
        bench.report.require()


class Narrow(Reference):
    """A simulator of ONNX files, say, that holds none."""

    name, reads, agrees_with = "narrow", ("onnx",), "loihi"

    def __init__(self, network: Network, options: Options) -> None:
        super().__init__(lower(chain((3,), lif((3,)))), options)

    def model(self, program: Program) -> Reference:
        return Reference(program, Options())

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        raise InputError("its delays are too long")


def test_a_simulator_that_cannot_hold_an_artifact_is_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = lower(chain((3,), lif((3,))))
    bench, said = ParityBench(program, np.ones((2, 1, 3), np.float32)), StringIO()
    monkeypatch.setattr(registry(), "runners", {"narrow": Narrow})
    bench.cross_check(tmp_path / "net.onnx", find_format("onnx"), "net.onnx", set(), Console(stream=said))
    assert "narrow cannot hold net.onnx and is left out of the table: its delays are too long" in " ".join(
        said.getvalue().split()
    )
    assert bench.runs == []


def test_connections_are_counted_one_by_one() -> None:
    weight = np.ones((2, 3, 3, 3), np.float32)
    conv = nir.Conv2d((5, 5), weight, stride=1, padding=0, dilation=1, groups=1, bias=np.zeros(2, np.float32))
    bench = ParityBench(lower(chain((3, 5, 5), conv, lif((2, 3, 3)))), np.ones((1, 1, 3, 5, 5), np.float32))
    assert bench.connections == 9 * 2 * 27


def test_simulators_get_as_many_samples_as_keep_their_spikes_within_a_bound() -> None:
    bench = ParityBench(lower(chain((3,), lif((3,)))), np.ones((2, 50, 3), np.float32), np.zeros(50, np.int64))
    assert [bench.within(10**9), bench.within(10**9, 7), bench.within(65), bench.within(1)] == [50, 7, 10, 1]
    bench.compare("some", Reference(bench.program, Options()), bench.program, samples=10)
    bench.compare("all", Reference(bench.program, Options()), bench.program)
    some, whole = bench.runs
    assert (some.compared, whole.compared, some.differing) == (2 * 10 * 3, 2 * 50 * 3, 0)
    assert some.accuracy is None
    assert some.nodes[0].near_threshold is None
