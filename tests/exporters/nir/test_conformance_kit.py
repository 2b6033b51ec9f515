"""The conformance kit: its graphs, what it makes of readers, and an independent reader in numpy."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stl_deploy._util.npz import read_npz
from stl_deploy.cli import main
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.conformance.kit import LEVELS, cases, expected_outputs, run_case, write_case
from stl_deploy.verbs.conformance import nir_conformance

DT = 1e-4
CASES = {case.name: case for case in cases(DT)}
READER = Path(__file__).with_name("tiny_reader.py")


def reader(compare: str = "gt") -> list[str]:
    return [sys.executable, str(READER), compare]


def script(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "reader.py"
    path.write_text(f"import sys\nimport numpy as np\ngraph, given, output = sys.argv[1:]\n{text}\n")
    return [sys.executable, str(path)]


def test_there_are_enough_graphs_of_every_level_with_names_of_their_own() -> None:
    assert len(CASES) == len(cases(DT)) >= 80
    counts = Counter(case.level for case in CASES.values())
    assert set(counts) == set(LEVELS)
    assert min(counts.values()) >= 10


@pytest.mark.parametrize("name", CASES)
def test_every_graph_is_read_as_spec_and_tells_dialects_apart(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    graph, arrays, expected = write_case(case, tmp_path, DT)
    assert {"spec", "stl"} <= set(expected)
    kept = read_npz(arrays)
    np.testing.assert_array_equal(kept["y__spec"], expected["spec"])
    if name != "threshold-large":
        assert expected["spec"].any()
        assert len({y.tobytes() for y in expected.values()}) > 2
    if case.damage is not None and not name.startswith("file-conv"):
        plain = tmp_path / "plain"
        plain.mkdir()
        write_case(type(case)(case.name, case.level, case.about, case.graph, case.x), plain, DT)
        assert graph.read_bytes() != (plain / graph.name).read_bytes()
        for dialect, y in expected_outputs(plain / graph.name, case.x, DT).items():
            np.testing.assert_array_equal(expected[dialect], y)


def test_the_graphs_are_the_same_each_time() -> None:
    for case, again in zip(cases(DT), cases(DT), strict=True):
        np.testing.assert_array_equal(case.x, again.x)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("two-layers", "equal"),
        ("all-parameters", "equal"),
        ("deep", "equal"),
        ("file-scalars", "equal"),
        ("lif-ties", "equal"),
        ("linear-if", "unsupported"),
        ("loop-lif", "unsupported"),
    ],
)
def test_an_independent_reader_of_the_spec_is_found_equal(name: str, status: str, tmp_path: Path) -> None:
    outcome = run_case(CASES[name], reader(), tmp_path, dialect="spec", dt=DT, deadline=60)
    assert outcome.status == status, outcome
    assert status != "equal" or "spec" in outcome.dialects


def test_a_reader_that_fires_at_the_threshold_differs_where_potentials_lie_on_it(tmp_path: Path) -> None:
    outcome = run_case(CASES["lif-ties"], reader("ge"), tmp_path, dialect="spec", dt=DT, deadline=60)
    assert outcome.status == "differs"
    assert outcome.differing > 0
    assert outcome.first is not None
    assert "stl" in outcome.dialects
    assert "spec" not in outcome.dialects


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("sys.exit('no such node')", "failed", "no such node"),
        ("print('LIF: not held', file=sys.stderr); sys.exit(77)", "unsupported", "LIF: not held"),
        ("pass", "failed", "out.npz"),
        ("np.savez(output, z=np.zeros(3))", "failed", "expected an array 'y'"),
        ("np.savez(output, y=np.zeros((2, 3)))", "failed", "expected y of shape [16, 3, 6]; found [2, 3]"),
        ("open(output, 'w').write('spikes')", "failed", "out.npz"),
        ("import time; time.sleep(60)", "failed", "no answer within 1 s"),
    ],
)
def test_what_readers_do_wrong_is_told_by_graph(text: str, status: str, reason: str, tmp_path: Path) -> None:
    deadline = 1 if "sleep" in text else 60
    command = script(tmp_path, text)
    outcome = run_case(CASES["affine-lif"], command, tmp_path, dialect="spec", dt=DT, deadline=deadline)
    assert (outcome.status, outcome.compared) == (status, 0)
    assert reason in outcome.reason


def test_the_verb_writes_both_tables_and_fails_for_a_reader_that_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = " ".join(script(tmp_path, "np.savez(output, y=np.zeros((16, 3, 6), np.float32))"))
    arguments = ["nir-conformance", "--reader", command, "--level", "time", "-o", str(tmp_path / "out"), "--json"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "out" / "nir-conformance.json").read_text())
    assert not told["conforms"]
    assert told["counts"]["failed"] == 3  # another number of steps
    assert told["counts"]["differs"] == len(told["graphs"]) - 3
    lines = (tmp_path / "out" / "nir-conformance.md").read_text().splitlines()
    assert sum(line.startswith("| time |") for line in lines) == len(told["graphs"])


def test_without_a_reader_graphs_inputs_and_expected_outputs_are_written(tmp_path: Path) -> None:
    done = nir_conformance(None, tmp_path / "kit", levels=["time"])
    assert {path.stem for path in (tmp_path / "kit").glob("*.nir")} == set(done["graphs"])
    assert "y__norse" in read_npz(tmp_path / "kit" / "latency.npz")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "expected reader=COMMAND"),
        ({"reader": "  "}, "expected a command"),
        ({"reader": "no-such-reader-program"}, "cannot be started"),
        ({"reader": "true", "dialect": "snntroch"}, "did you mean 'snntorch'"),
        ({"reader": "true", "levels": ["shape"]}, "did you mean 'shapes'"),
        ({"reader": "true", "dt": 0.0}, "expected a positive number"),
        ({"reader": "'unbalanced"}, "quot"),
    ],
)
def test_a_wrong_call_is_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        nir_conformance(**options)  # type: ignore[arg-type]
