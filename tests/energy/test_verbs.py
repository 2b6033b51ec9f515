"""The verb energy: its forms, its files, and one clear sentence for bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from html import unescape
from pathlib import Path

import nir
import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.cli.main import main as command_line
from stl_deploy.energy.measure import measure_energy
from stl_deploy.energy.prices.chip import OnChip
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.dialect import load_dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Neuron
from stl_deploy.report.text.energy import show, summary
from stl_deploy.verbs.energy_of import energy
from tests.conformance.golden import GOLDEN
from tests.energy.brute import Walk
from tests.energy.nets import f32, lif, linear, program, start
from tests.energy.test_report import Page


def main(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        command_line(arguments)
    return ended.value.code


def write(folder: Path, x: np.ndarray, *, stated: bool = True, **more: np.ndarray) -> tuple[str, str]:
    """A network, with its dialect in its metadata unless not ``stated``, and its input."""
    graph = nir.NIRGraph(
        metadata={"stl_deploy": {"dialect": {"dt": 1e-4}}} if stated else {},
        nodes={
            "input": nir.Input(np.array([3])),
            "fc": nir.Linear(np.ones((2, 3), np.float32)),
            "if": nir.IF(r=np.full(2, 1e4), v_threshold=np.ones(2)),  # 1 for each spike that arrives
            "output": nir.Output(np.array([2])),
        },
        edges=[("input", "fc"), ("fc", "if"), ("if", "output")],
    )
    nir.write(folder / "net.nir", graph)
    np.savez(folder / "x.npz", x=x, **more)
    return str(folder / "net.nir"), str(folder / "x.npz")


def spikes(T: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (T, 5, 3)).astype(np.float32)


def test_one_command_gives_counts_models_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, x = write(tmp_path, spikes(), y=np.array([0, 1, 0, 1, 1]))
    assert main(["energy", net, "-i", x, "-o", str(tmp_path / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    data = json.loads(shown.out)
    assert data == json.loads((tmp_path / "out" / "energy.json").read_text())
    assert (tmp_path / "out" / "layers.csv").read_text().startswith("layer,in_nonzero,")
    page = (tmp_path / "out" / "energy.html").read_text()
    Page(page)
    assert f'data-value="{data["totals"]["synops"]}"' in page
    assert "stl-deploy energy validate" in page
    assert data["layers"]["fc"]["synops"] == 2 * int(spikes().sum())
    assert set(data["per_class"]) == {"0", "1"}
    for text in (
        "memory included: the SNN costs",
        "fp32, 45 nm",
        "what dominates",
        "unmeasured",
        "spikes per synapse",
        "on a chip, modelled",
        *("energy.html", "energy.json", "layers.csv", "neurobench.json"),
    ):
        assert text in shown.err


@pytest.mark.parametrize("networks", [1, 2])
def test_a_page_that_fails_leaves_no_other_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, networks: int
) -> None:
    def fails(*contents: object) -> str:
        raise InputError("no page today")

    monkeypatch.setattr("stl_deploy.report.energy_page.page", fails)
    monkeypatch.setattr("stl_deploy.verbs.weighing.render_pareto", fails)
    net, x = write(tmp_path, spikes(), y=np.array([0, 1, 0, 1, 1]))
    assert main(["energy", *[net] * networks, "-i", x, "-o", str(tmp_path / "out")]) == 2
    assert "no page today" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_table_says_which_lines_are_of_chips_that_cannot_hold_the_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, say = f32(np.ones((2, 1, 1))), Console()
    net = program(start((1,)), linear("fc", "in", f32([[1]])), lif("n", "fc", (1,)))
    refused = OnChip("Loihi 1", reason="'n' has a soft reset")
    for chip in (refused, OnChip()):
        show(measure_energy(net, x, chip=chip), say)
        (row,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Loihi 1 ")]
        assert ("not placed" in row) == (chip is refused)
        assert ("J" in row) == (chip is not refused)
    show(measure_energy(net, x), say)
    assert "No microcontroller is priced without a step time: " in capsys.readouterr().err


def test_the_sources_of_chip_lines_are_printed_and_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, x = write(tmp_path, spikes())
    assert main(["energy", net, "-i", x]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "Sources of the chips' energy: -v, or --json." in shown
    assert "SNABSuite" not in shown
    assert main(["-v", "energy", net, "-i", x, "-o", str(tmp_path / "out"), "--json"]) == 0
    found = capsys.readouterr()
    chips = json.loads(found.out)["chips"]
    page = unescape((tmp_path / "out" / "energy.html").read_text())
    assert {"loihi1", "spinnaker1", "up5k"} <= {chip["chip"] for chip in chips}
    for chip in chips:
        assert f"{chip['title']}: {chip['source']}" in " ".join(found.err.split())
        assert f"<dt>{chip['title']}</dt><dd>{chip['source']}. {chip['note']}</dd>" in page


@pytest.mark.push(1)
@pytest.mark.parametrize("dialect", ["snntorch", "spikingjelly"])
def test_a_file_from_elsewhere_gives_the_whole_report(
    dialect: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.nir"
    if dialect == "snntorch":
        file.write_bytes((Path(__file__).parent / "golden" / "snntorch.nir").read_bytes())
        x = np.random.default_rng(1).integers(0, 2, (4, 8, 1, 6, 6)).astype(np.float32)
    else:
        with np.load(GOLDEN / "spikingjelly-read-spikingjelly-conv-avg.npz") as kept:
            file.write_bytes(kept["nir"].tobytes())
            x = kept["x"].astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    command = ["energy", str(file), "-i", str(tmp_path / "x.npz"), "--dialect", dialect, "-o", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    program = lower(read_nir(file), load_dialect(dialect))
    walk = Walk(program, x, "spikes")
    assert sum(layer.get("spikes", 0) for layer in data["layers"].values()) > 20
    for name, layer in data["layers"].items():
        node = program.by_name[name]
        operations = walk.operations(node) if isinstance(node, Neuron) else {}
        assert layer == {**walk.layer(node), **operations, **walk.memory(node)}
    assert data["placement"]["reason"].endswith(("its reset is 'subtract_delayed'", "without a neuron between"))
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["energy.html", "energy.json", "layers.csv", "neurobench.json"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "Dialect: as the graph's metadata declare."),
        (["--dialect", "snntorch"], "Dialect: snntorch (as asked)."),
    ],
)
def test_how_the_file_was_read_is_said(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, x = write(tmp_path, spikes())
    assert main(["energy", net, "-i", x, "--json", *options]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["assumptions"][0].startswith(sentence)
    assert sentence in shown.err


def test_each_published_limit_is_told_of_the_measure_that_it_is_of(tmp_path: Path) -> None:
    net, x = write(tmp_path, spikes())
    report = energy(Path(net), Path(x))
    lines = summary(report)
    crossed = next(line for line in lines if "spikes per synapse and inference" in line)
    assert "Davidson" in crossed
    assert "Dampfhoffer" in crossed
    assert "Yan" not in crossed
    assert report.break_even.spike_rate == report.counts.totals.spikes / (2 * 4 * 5) == 0.65
    assert "65 % spikes per neuron and step: above the limit of Yan et al." in lines
    inside = replace(report.break_even, published=tuple((p, v, "within") for p, v, _ in report.break_even.published))
    assert "between the limits of Dampfhoffer et al." in summary(replace(report, break_even=inside))[-2]
    steady = replace(report.break_even, published=tuple((p, None, "not defined") for p, *_ in inside.published))
    assert not any("limit" in line for line in summary(replace(report, break_even=steady)))
    dearest = max(report.itemised[report.as_dict()["leads"]]["snn"], key=lambda item: item["joules"][1])
    (dominates,) = [line for line in lines if line.startswith("what dominates ")]
    assert f": {dearest['layer']}: {dearest['term']} " in dominates


def test_a_small_ratio_is_not_shown_as_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, x = write(tmp_path, 0 * spikes(1))
    graph = read_nir(Path(net))
    graph.nodes["fc"] = nir.Linear(np.ones((2, 3000), np.float32))
    graph.nodes["input"] = nir.Input(np.array([3000]))
    nir.write(net, graph)
    few = np.zeros((1, 1, 3000), np.float32)
    few[..., :2] = 1
    np.savez(x, x=few)
    assert main(["energy", net, "-i", x, "--json"]) == 0
    shown = capsys.readouterr()
    assert min(cell["snn_over_ann"] for cell in json.loads(shown.out)["comparisons"]) < 0.005
    assert "0.00 times" not in shown.err


def test_a_file_that_does_not_say_its_dialect_is_not_costed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, x = write(tmp_path, spikes(), stated=False)
    assert main(["energy", net, "-i", x, "-o", str(tmp_path / "out")]) == 2
    assert "the file does not say how it is meant" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_graph_s_own_dialect_is_said(tmp_path: Path) -> None:
    net, x = write(tmp_path, spikes(), stated=False)
    ours = tmp_path / "ours.nir"
    assert main(["export", net, "--to", "nir", "-o", str(ours), "--dialect", "sinabs"]) == 0
    assert energy(ours, Path(x)).assumptions[0] == "Dialect: as the graph's metadata declare."


def test_a_report_of_anyone_s_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, x = write(tmp_path, spikes(), y=np.zeros(5, np.int64))
    assert main(["report", net, "-i", x, "-o", str(tmp_path / "out"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    page = (tmp_path / "out" / "report.html").read_text()
    assert data["energy"]["verdict"].split(",")[0] in page
    assert data["summary"]["neurons"] == "2"
    assert [p["steps"] for p in data["tradeoff"]["points"] if p["margin"] is None] == [4, 2, 1]


def test_the_step_time_of_a_chip_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, x = write(tmp_path, spikes())
    assert main(["energy", net, "-i", x, "--step-time", "loihi1=0"]) == 2
    assert "step time of loihi1: expected the seconds of one measured time step" in capsys.readouterr().err
    assert main(["energy", net, "-i", x, "--step-time", "loihi1=1e-3", "--json"]) == 0
    chips = {c["chip"]: c for c in json.loads(capsys.readouterr().out)["chips"]}
    assert [name for name, c in chips.items() if c["step_time_source"] == "given"] == ["loihi1"]
    assert chips["loihi1"]["step_time_s"] == [1e-3, 1e-3]


def test_validate_prints_every_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["energy", "validate"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "-39%" in shown.err
    assert " bad" in shown.err
    assert main(["energy", "validate", "--json", "-q"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"predicted", "measured", "error", "verdict", "source"} <= set(data[0])


@pytest.mark.parametrize(
    ("x", "options", "sentence"),
    [
        (None, [], "energy depends on activity; give the input with --input X.npz"),
        (spikes(0), [], "expected [T, B, *input shape] with T, B >= 1"),
        (spikes() / 2, ["--input-coding", "spikes"], "the input coding is 'spikes' (caller) but the input holds 0.5"),
        (spikes() / 2, ["--input-coding", "graded"], "graded events carry integers"),
        (spikes(), ["--input-coding", "rate"], "input coding (caller): expected spikes, graded, analog; found 'rate'"),
        (spikes(), ["--prices", "horowitz"], "found 'horowitz' (did you mean 'horowitz45_"),
        (
            spikes(),
            ["--prices", "bad.toml"],
            "'mac': expected as value a number from 0 up, or a range [low, high]; found -1",
        ),
        (spikes(), ["--ann", "."], "expected a run folder written by 'stl-deploy train'"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    x: np.ndarray | None,
    options: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    net, file = write(tmp_path, spikes() if x is None else x)
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text(
        'title="t"\nscope="arithmetic"\nnode="n"\nyear=1\nevidence="measured"\nsource="s"\n'
        '[terms]\nmac={value=-1,unit="pJ"}\n'
    )
    assert main(["energy", net, *([] if x is None else ["-i", file]), *options]) == 2
    shown = capsys.readouterr()
    assert sentence in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
