"""One options class for each verb: keywords, command line and errors come from it, and methods work in memory."""

import inspect
import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy._util import temporary
from stl_deploy._util.tables import html_table
from stl_deploy.cli.app import app
from stl_deploy.cli.command import command
from stl_deploy.config import options, run_options
from stl_deploy.energy.context import Context, ContextKeywords
from stl_deploy.energy.measure import energy_report, measure_energy
from stl_deploy.pipeline.spiking_graph import SpikingGraph

NAMES = {**vars(options), **vars(run_options)}
CLASSES = [name for name in NAMES if name.endswith("Options")]
TWINS = [name for name in CLASSES if name.replace("Options", "Keywords") in NAMES]


@pytest.fixture(scope="module")
def net() -> SpikingGraph:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), stl.LIF((8,), threshold=0.4), nn.Linear(8, 3), stl.LIF((3,), threshold=0.3))
    return stl.capture(model, (torch.rand(5, 4, 6) < 0.4).float())


@pytest.mark.parametrize("name", TWINS)
def test_keywords_are_the_fields(name: str) -> None:
    named = get_type_hints(NAMES[name.replace("Options", "Keywords")])
    assert named == get_type_hints(NAMES[name])


def test_the_context_of_an_energy_report_is_its_keywords() -> None:
    assert get_type_hints(ContextKeywords) == get_type_hints(Context)
    for function in (measure_energy, energy_report):
        assert {one.name for one in fields(Context)} <= inspect.signature(function).parameters.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_has_a_help_text_and_no_position(name: str) -> None:
    for one in fields(NAMES[name]):
        assert one.kw_only
        assert options.shown(one).help.endswith((".", ")"))


@pytest.mark.parametrize("verb", ["check", "fold", "export", "simulate", "verify", "energy"])
def test_methods_verbs_and_the_command_line_take_the_same_options(verb: str) -> None:
    kind = getattr(options, f"{verb.title()}Options")
    group: Any = typer.main.get_command(app)
    spelled = {option.name for option in group.get_command(None, verb).params}
    for one in fields(kind):
        assert one.name in inspect.signature(getattr(SpikingGraph, verb)).parameters
        assert one.name in inspect.signature(getattr(verbs, verb)).parameters
        how = options.shown(one)
        assert how.hidden or spelled >= set(how.switches or (one.name,))


def gathered(line: str, *classes: type) -> list[Any]:
    """What a command with these options makes of a line."""
    found: list[Any] = []

    def verb(first: Any, second: Any) -> None:
        found.extend((first, second))

    verb.__annotations__ = dict(zip(("first", "second"), classes, strict=True))
    one = typer.Typer()
    one.command()(command(verb))
    result = CliRunner().invoke(one, line.split())
    assert result.exit_code == 0, result.output
    return found


def test_a_command_gathers_what_was_given() -> None:
    run, train = run_options.RunOptions, run_options.TrainOptions
    line = "--no-twin --set a=1 --set b=2 --data-dir x"
    assert gathered(line, run, train) == [run(twin=False), train(set=("a=1", "b=2"), data_dir="x")]
    assert train(set=("a=1", "b=2"), data_dir="x").changes == ['dataset.data_dir="x"', "a=1", "b=2"]
    export, points = options.ExportOptions, options.TradeoffOptions
    expected = export(precision="exact", form="step", verified=False, lanes=4, round_decays=True)
    line = "--exact --form step --no-verify --lanes 4 --round-decays --early-exit"
    assert gathered(line, export, points) == [expected, points(early_exit=True)]
    assert gathered("", export, points) == [export(), points()]
    energy = options.EnergyOptions
    line = "--prices a --prices b --step-time loihi1=1e-3 --input-grid 3"
    expected = energy(prices=("a", "b"), step_time={"loihi1": 1e-3}, input_grid=3)
    assert gathered(line, energy, points) == [expected, points()]


def test_what_the_command_line_gives_is_what_python_gives() -> None:
    assert options.ExportOptions() == options.ExportOptions()
    given = options.ExportOptions(precision="exact", lanes=4, round_decays=True, target_options={"indent": 2})
    assert options.of_target(given) == {"precision": "exact", "lanes": 4, "round_decays": True, "indent": 2}
    assert options.of_target(options.ExportOptions(input_grid=3, verified=False)) == {}


def test_methods_make_no_temporary_files_of_their_own(
    net: SpikingGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export is written beside its place first; nothing else may go through a file."""
    x = net.sample
    net.export(tmp_path / "net.onnx")

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a temporary file in a method")

    for name in ("TemporaryDirectory", "mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryFile"):
        monkeypatch.setattr(tempfile, name, refused)
    monkeypatch.setattr(temporary, "temporary_folder", refused)
    assert net.check("onnx", "netx").targets
    assert net.fold(thresholds="weights").program.nodes
    for backend in ("reference", "loihi"):  # ONNX Runtime reads a file, which its Runner writes
        assert net.simulate(x, backend=backend).y.shape == (5, 4, 3)
    assert net.verify(tmp_path / "net.onnx").require().runs[0].differing == 0
    report = net.energy(x, labels=[0, 1, 2, 0], prices=["horowitz45_fp32"])
    assert report.totals["spikes"] > 0
    assert net.energy(x, labels=[0, 1, 2, 0], prices="horowitz45_fp32").as_dict() == report.as_dict()  # type: ignore[arg-type]
    assert net.quantised(x).graph().program.nodes
    assert net.module().program().nodes
    assert net.evaluate([(np.asarray(x), np.array([0, 1, 2, 0]))], time="first").samples == 4
    net.stream().step(np.asarray(x)[0])
    repr(net), str(net), net.rows


@pytest.mark.parametrize(("suffix", "target"), [(".onnx", None), (".nir", None), (".net", None), ("", "c")])
def test_export_writes_beside_its_place_alone(
    net: SpikingGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, target: str | None
) -> None:
    real, made = temporary.temporary_folder, []

    def watched(parent: Path | None = None) -> Any:
        made.append(parent)
        return real(parent)

    monkeypatch.setattr("stl_deploy.pipeline.artifacts.temporary_folder", watched)
    done = net.export(tmp_path / f"net{suffix}", target, verified=False)
    assert made == [tmp_path]
    assert done["source"] == {"source": net.name, "sha256": net.program.digest()}


def test_an_export_is_three_lines_and_its_manifest(net: SpikingGraph, tmp_path: Path) -> None:
    done = net.export(tmp_path / "net.onnx")
    assert json.loads((tmp_path / "net.onnx.manifest.json").read_text()) == done
    first, second, third = repr(done).splitlines()
    assert first.startswith(f"{tmp_path / 'net.onnx'}: onnx, ")
    assert second == "run on 4 samples of x: 0 of 220 spikes differ from the graph"
    assert third.startswith("net.onnx.manifest.json beside it: ")
    assert repr(net.export(tmp_path / "a.onnx", verified=False)).splitlines()[1] == "not verified"


def test_the_digest_is_of_every_number(net: SpikingGraph) -> None:
    again = SpikingGraph(net.graph, net.dialect)
    assert again.program.digest() == net.program.digest()
    assert net.fold(thresholds="weights").program.digest() != net.program.digest()


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (
            lambda net, path: net.export(path, target="c"),
            r"export\(\) has no keyword 'target'; use to=; it ",
        ),
        (lambda net, path: net.export(path, verify=False), "'verify'; use verified="),
        (lambda net, path: net.export(path, tresholds="folded"), r"'tresholds' \(did you mean 'thresholds'\?\)"),
        (lambda net, path: net.simulate(net.sample, target="onnx"), "use backend="),
        (lambda net, path: net.energy(price=["x"]), r"'price' \(did you mean 'prices'\?\)"),
        (lambda net, path: net.fold(threshold="weights"), r"did you mean 'thresholds'"),
        (lambda net, path: stl.LIF((3,), beta=0.9), r"LIF\(\) has no keyword 'beta'; use decay="),
        (lambda net, path: stl.LI((3,), learn_beta=True), r"LI\(\) has no keyword 'learn_beta'; use learn_decay="),
        (lambda net, path: stl.LIF((3,), tau=2.0), r"LIF\(\) has no keyword 'tau'; use decay=1 - 1 / tau"),
        (lambda net, path: stl.train("digits", epochs=3), r"'epochs'; use changes=\['train.epochs=VALUE'\]; it takes"),
        (lambda net, path: stl.train("digits", outptu=path), r"train\(\) has no keyword 'outptu' \(did you mean 'out"),
        (lambda net, path: stl.LIF((3,), v_threshold=0.9), "use threshold="),
        (lambda net, path: net.evaluate(x=net.sample), r"evaluate\(\) has no keyword 'x'; use data="),
        (lambda net, path: net.evaluate(net.sample, [0, 1]), "takes data by position; found 2 values; give .*: steps"),
    ],
)
def test_a_wrong_keyword_names_the_right_one(net: SpikingGraph, tmp_path: Path, call: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        call(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda net: net.check("verilog", lanes="8"), "lanes: expected an integer; found '8'"),
        (lambda net: net.check("verilog", lanes=True), "lanes: expected an integer; found True"),
        (lambda net: net.verify("onnx", deadline=None), "deadline: expected a number; found None"),
        (lambda net: net.fold(merge_pools="no"), "merge_pools: expected True or False; found 'no'"),
        (lambda net: net.energy(margin="0.5"), "margin: expected a number; found '0.5'"),
        (
            lambda net: net.energy(step_time={"loihi1": "66us"}),
            r"step_time\['loihi1'\]: expected a number; found '66us'",
        ),
        (lambda net: net.energy(step_time=66e-6), "step_time: expected a dict; found 6.6e-05"),
        (lambda net: net.verify("onnx", deadline="3"), "deadline: expected a number; found '3'"),
        (lambda net: net.evaluate([], time="frist"), "time: expected 'first' or 'second'; found 'frist'"),
        (lambda net: net.evaluate([], steps="3"), "steps: expected an integer; found '3'"),
        (lambda net: net.evaluate([], input_grid="8"), "input_grid='8': expected 0 to 24 fraction bits"),
        (lambda net: net.evaluate([], batch_size=0), "batch_size: expected an integer of at least 1; found 0"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(net: SpikingGraph, call: Any, sentence: str) -> None:
    with pytest.raises(stl.InputError, match=sentence):
        call(net)
    assert net.fold(input_grid=np.int64(3), merge_pools=np.True_)


def test_an_option_of_another_target_is_refused_by_name(net: SpikingGraph, tmp_path: Path) -> None:
    with pytest.raises(stl.InputError, match="expected c or c_floats for option 'flash'; found onnx; leave it out"):
        net.export(tmp_path / "net.onnx", flash="64K")
    with pytest.raises(stl.InputError, match=r"expected options of onnx: .*; found 'wibble'"):
        net.export(tmp_path / "net.onnx", wibble=3)
    with pytest.raises(stl.InputError, match=r"expected options of check: input_grid, .*device.*; found 'wibble'"):
        net.check("verilog", wibble=3)
    with pytest.raises(stl.InputError, match="--exact and --integer exclude each other; give one"):
        app(["export", str(tmp_path), "-o", "a.onnx", "--exact", "--integer"], standalone_mode=False)


def test_notebooks_show_tables(net: SpikingGraph, tmp_path: Path) -> None:
    net.export(tmp_path / "net.onnx")
    shown = {
        "graph": net._repr_html_(),
        "proof": net.proof._repr_html_(),
        "bill": net.energy()._repr_html_(),
        "verification": net.verify(tmp_path / "net.onnx")._repr_html_(),
    }
    for html in shown.values():
        root = ElementTree.fromstring(f"<div>{html}</div>")
        widths = {len(row) for row in root.iter("tr")}
        assert len(widths) == 1, "a row of another length"
    assert "<caption>SpikingGraph " in shown["graph"]
    assert net.energy().report.verdict.split()[0] in shown["bill"]


def test_names_of_others_are_escaped() -> None:
    assert html_table([["<a>"], ["&"]]) == (
        "<table><thead><tr><th>&lt;a&gt;</th></tr></thead><tbody><tr><td>&amp;</td></tr></tbody></table>"
    )
