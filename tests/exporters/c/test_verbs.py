"""The command line over C folders: export, simulate on the program and on its integers, verify, check."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.files import read_npz
from stl_deploy.cli import main
from stl_deploy.exporters.c.compiler import find_compiler, why_none

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=why_none())


class Call:
    """What a call of the command line left."""

    def __init__(self, exit_code: int, stdout: str, stderr: str) -> None:
        self.exit_code, self.stdout, self.output = exit_code, stdout, " ".join((stdout + stderr).split())


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str | Path) -> Call:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = stop.value.code
        return Call(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that does not end."""
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nsleep 60\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))


@pytest.mark.push(2)
@pytest.mark.usefixtures("hanging")
@pytest.mark.parametrize(
    "call",
    [
        ("export", "RUN", "--to", "c", "-o", "OUT/net"),
        ("verify", "RUN", "--against", "DIR"),
        ("verify", "RUN", "--against", "c"),
        ("simulate", "DIR", "-i", "RUN/test.npz", "--backend", "c", "-o", "OUT/y.npz"),
    ],
)
def test_a_compiler_that_hangs_is_stopped_at_the_deadline(
    call: tuple[str, ...], exported: Path, digits_run: Path, tmp_path: Path, cli: Any
) -> None:
    """Nothing is left behind."""
    (tmp_path / "out").mkdir()
    places = {"RUN": str(digits_run), "DIR": str(exported), "OUT": str(tmp_path / "out")}
    done = cli(*(places.get(word) or "/".join(places.get(w, w) for w in word.split("/")) for word in call),
        "--deadline", "0.5")  # fmt: skip
    assert done.exit_code == 1
    assert "did not end within 0.5 s and was stopped" in done.output
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_a_deadline_that_is_none(seconds: str, digits_run: Path, tmp_path: Path, cli: Any) -> None:
    done = cli("export", digits_run, "--to", "c", "-o", tmp_path / "net", "--deadline", seconds)
    assert done.exit_code == 2
    assert "--deadline: expected seconds above 0, at most 1,000,000; found" in done.output


@pytest.fixture(scope="module")
def exported(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from stl_deploy.verbs.artifacts import export

    folder = tmp_path_factory.mktemp("c") / "digits"
    export(digits_run, "c", folder, verified=find_compiler() is not None)
    return folder


@needs_compiler
def test_every_spike_of_every_test_image(exported: Path, digits_run: Path, tmp_path: Path, cli: Any) -> None:
    """The program, the integers that it was made from, and what was verified at the export."""
    test = digits_run / "test.npz"
    arrays = {}
    for backend in ("c", "loihi"):
        done = cli("simulate", exported, "-i", test, "--backend", backend, "-o", tmp_path / "y.npz", "--record")
        assert done.exit_code == 0, done.output
        arrays[backend] = read_npz(tmp_path / "y.npz")
    assert arrays["c"].keys() == arrays["loihi"].keys() == {"y", *(f"spikes__{n}" for n in
        ("lif1", "pool1", "lif2", "pool2", "lif3"))}  # fmt: skip
    assert arrays["c"]["y"].shape[1] == 359
    for name, values in arrays["c"].items():
        np.testing.assert_array_equal(values, arrays["loihi"][name])
    manifest = json.loads((exported.parent / "digits.manifest.json").read_text())
    against = [run for run in manifest["verified"]["runs"] if run["against"] != "reference"]
    assert [run["differing"] for run in against] == [0]
    check = ("check/main.c", "check/net_selftest.c", "check/net_selftest.h")
    made = ("Makefile", "integers.npz", "main.c", "net.c", "net.h", "net_decide.c", "net_decide.h", *check)
    assert set(manifest["files"]) == {f"digits/{name}" for name in made}


@needs_compiler
@pytest.mark.parametrize("what", ["DIR", "c"])
def test_verify_builds_with_the_flags_that_ship(
    what: str, exported: Path, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    """The compiler is called with them, with and without the recording of spikes: outputs are those of the latter."""
    calls, wrapper = tmp_path / "calls", tmp_path / "cc"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >>{calls}\nexec {find_compiler()} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CC", str(wrapper))
    against = exported if what == "DIR" else what
    done = cli("verify", digits_run, "--against", against, "--cflags", "-O3 -DNET_NARROW", "--json")
    assert done.exit_code == 0
    *_, model = json.loads(done.stdout)["runs"]
    assert model["exact"]
    builds = [line for line in calls.read_text().splitlines() if "-O3 -DNET_NARROW" in line]
    assert sorted("-DNET_RECORD" in line for line in builds) == [False, True]


@needs_compiler
def test_flags_that_cannot_be_used_are_one_sentence(exported: Path, digits_run: Path, cli: Any) -> None:
    call = ("verify", digits_run, "--against")
    wrong = cli(*call, exported, "--cflags", "-fno-such-flag")
    assert (wrong.exit_code, "no-such-flag" in wrong.output) == (1, True)
    unbalanced = cli(*call, exported, "--cflags", "-D'x")
    assert (unbalanced.exit_code, "--cflags: expected flags as a shell splits them" in unbalanced.output) == (2, True)
    none = cli(*call, "onnx", "--cflags", "-O3")
    assert (none.exit_code, "--cflags: expected a C folder or the backend c" in none.output) == (2, True)


@needs_compiler
def test_verify_holds_the_folder_to_its_integers(exported: Path, digits_run: Path, cli: Any) -> None:
    done = cli("verify", digits_run, "--against", exported, "--json")
    assert done.exit_code == 0, done.output
    runs = json.loads(done.stdout)["runs"]
    assert any(run["differing"] == 0 and run["compared"] > 10**6 for run in runs)


@needs_compiler
def test_foreign_text_needs_trust(exported: Path, digits_run: Path, tmp_path: Path, cli: Any) -> None:
    text = (exported / "main.c").read_text()
    given = ("simulate", exported, "-i", digits_run / "test.npz", "--backend", "c", "-o", tmp_path / "y.npz")
    try:
        (exported / "main.c").write_text(text + "/* mine */\n")
        done = cli(*given)
        assert done.exit_code == 2
        assert "main.c: expected what stl-deploy makes of integers.npz; found other text" in done.output
        assert cli(*given, "--trust").exit_code == 0
    finally:
        (exported / "main.c").write_text(text)


def test_limits_and_places(digits_run: Path, tmp_path: Path, cli: Any) -> None:
    place = tmp_path / "net"
    done = cli("export", digits_run, "--to", "c", "-o", place, "--ram", "1K", "--no-verify")
    assert done.exit_code == 1
    assert "expected at most 1,024 bytes of RAM" in done.output
    assert not place.exists()
    place.mkdir()
    (place / "mine.txt").write_text("kept")
    done = cli("export", digits_run, "--to", "c", "-o", place, "--no-verify")
    assert done.exit_code == 2
    assert (place / "mine.txt").read_text() == "kept"


def test_an_edited_folder_is_replaced_only_on_demand(
    exported: Path, digits_run: Path, tmp_path: Path, cli: Any
) -> None:
    """Files of the user's own beside ours are no edits, and stay."""
    place, manifest = tmp_path / "net", tmp_path / "net.manifest.json"
    shutil.copytree(exported, place)
    text = (exported.parent / "digits.manifest.json").read_text().replace('"digits/', '"net/')
    manifest.write_text(text)
    call = ("export", digits_run, "--to", "c", "-o", place, "--no-verify")
    (place / "app.c").write_text("mine")
    assert cli(*call).exit_code == 0
    edited = (place / "net.c").read_text() + "/* tuned */\n"
    (place / "net.c").write_text(edited)
    done = cli(*call)
    assert done.exit_code == 2
    assert "net.c: was edited since stl-deploy wrote it; give --overwrite" in done.output
    assert (place / "net.c").read_text() == edited
    manifest.unlink()
    done = cli(*call)
    assert done.exit_code == 2
    assert "expected net.manifest.json beside it, which tells whether its files were edited" in done.output
    assert (place / "net.c").read_text() == edited
    assert cli(*call, "--overwrite").exit_code == 0
    assert (place / "net.c").read_text() + "/* tuned */\n" == edited
    assert (place / "app.c").read_text() == "mine"


def test_nothing_of_another_package_or_prefix_stays(digits_run: Path, tmp_path: Path, cli: Any) -> None:
    """The old network, which a project would build on; beside it the user's own file."""
    place = tmp_path / "net"
    call = ("export", digits_run, "--to", "c", "-o", place, "--no-verify")
    assert cli(*call, "--package", "cmake", "--name", "old").exit_code == 0
    (place / "old_cmake" / "app.c").write_text("mine")
    assert (place / "old_cmake" / "src" / "old.c").is_file()
    outside = tmp_path / "else.c"
    outside.write_text("not ours")
    manifest = tmp_path / "net.manifest.json"
    named = json.loads(manifest.read_text())
    for name in ("else.c", "net/../else.c", str(outside)):
        named["files"][name] = named["files"]["net/old.c"]
    manifest.write_text(json.dumps(named))
    assert cli(*call, "--overwrite").exit_code == 0
    left = sorted(file.name for file in place.rglob("*") if file.is_file() and "old" in file.as_posix())
    assert left == ["app.c"]
    assert (place / "net.c").is_file()
    assert outside.read_text() == "not ours"


def test_check_tells_at_once_what_no_chip_can_hold(
    digits_run: Path, tmp_path: Path, cli: Any, monkeypatch: Any
) -> None:
    """From an estimate: no calibration is loaded, here and by export."""
    monkeypatch.setattr("stl_deploy.exporters.c.target.calibration", None)
    done = cli("check", digits_run, "--target", "c", "--ram", "4K", "--json")
    assert done.exit_code == 1
    (found,) = (one for one in json.loads(done.stdout)["findings"] if one["severity"] == "error")
    assert (found["slug"], found["target"]) == ("too-much-ram", "c")
    assert "expected at most 4,096 bytes of RAM; the network takes about" in found["reason"]
    least = int(found["remedy"].split("a chip with at least ")[1].split(" ")[0].replace(",", ""))
    assert (
        cli("check", digits_run, "--target", "c", "--ram", str(least), "--flash", "1M", "--potentials", "16").exit_code
        == 0
    )
    assert "too-much-flash" in cli("check", digits_run, "--flash", "2K", "--json").output
    done = cli("export", digits_run, "--to", "c", "-o", tmp_path / "net", "--ram", "4K")
    assert done.exit_code == 1
    assert "expected at most 4,096 bytes of RAM" in done.output
    assert not (tmp_path / "net").exists()
    for wrong, said in (
        (("--ram", "4G"), "--ram: expected bytes, as 262144, 256K or 1M; found '4G'"),
        (("--ram", "4K", "--target", "onnx"), "expected --target c or c_floats for option 'ram'; found onnx; name it"),
    ):
        done = cli("check", digits_run, *wrong)
        assert done.exit_code == 2, done.output
        assert said in done.output


def test_a_prefix_that_is_no_name_ends_the_call_before_anything_is_made(
    digits_run: Path, tmp_path: Path, cli: Any
) -> None:
    done = cli("export", digits_run, "--to", "c", "-o", tmp_path / "net", "--name", "my-net")
    assert done.exit_code == 2
    assert "--name: expected an identifier" in done.output
    assert "found 'my-net'" in done.output
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_the_export_says_that_it_was_not_run(
    digits_run: Path, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    done = cli("export", digits_run, "--to", "c", "-o", tmp_path / "net", "--json")
    assert done.exit_code == 0, done.output
    assert "was written but not run: no C compiler found" in done.output
    assert json.loads(done.stdout)["verified"] is None
    done = cli("simulate", tmp_path / "net", "-i", digits_run / "test.npz", "--backend", "c", "-o", tmp_path / "y.npz")
    assert done.exit_code == 2
    assert "no C compiler found" in done.output


def test_show_tells_the_memory_of_each_layer(exported: Path, cli: Any) -> None:
    done = cli("show", exported, "--json")
    assert done.exit_code == 0, done.output
    rows = {row["node"]: row for row in json.loads(done.stdout)}
    assert rows["conv2"]["parameters"] == 16 * 8 * 9
    assert rows["conv2"]["synapses"] == 16 * 8 * (2 * 2 + 2 * 3) ** 2
    assert rows["lif2"]["constants"].endswith("bytes of flash, 1,024 of RAM")


def test_check_tells_what_integers_hold(digits_run: Path, cli: Any) -> None:
    done = cli("check", digits_run, "--target", "c", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["targets"] == {"c": "approximate"}


@needs_compiler
def test_a_run_s_integers_are_chosen_on_its_training_samples_and_says_so(
    digits_run: Path, tmp_path: Path, cli: Any
) -> None:
    for source in (digits_run, digits_run / "net.nir"):
        done = cli("export", source, "--to", "c", "-o", tmp_path / source.stem)
        assert done.exit_code == 0
        assert f"choosing integers on 256 training samples of {digits_run}" in done.output
    first, second = (read_npz(tmp_path / name / "integers.npz") for name in (digits_run.stem, "net"))
    weights = [name for name in first if name.endswith(".weight")]
    assert weights
    assert all(np.array_equal(first[name], second[name]) for name in weights)


@needs_compiler
def test_random_input_stands_beside_the_agreement_of_a_graph_of_its_own(
    digits_run: Path, tmp_path: Path, cli: Any
) -> None:
    shutil.copy(digits_run / "net.nir", tmp_path / "alone.nir")
    done = cli("export", tmp_path / "alone.nir", "--to", "c", "-o", tmp_path / "c")
    assert "running it on 8 random samples" in done.output
    assert "agreement (random input)" in done.output
    assert "training samples" not in done.output
