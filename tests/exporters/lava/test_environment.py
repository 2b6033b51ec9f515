"""The side environment: found, built once, never half, never twice at the same time; with stand-ins for Python 3.10."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stl_deploy._util.npz import write_npz
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava.target import run_lava
from stl_deploy.exporters.netx.file import write_netx
from stl_deploy.exporters.witnesses.environment import BRIAN2, WITNESSES
from tests.exporters.netx.nets import chain, dense, neuron
from tests.exporters.witnesses import stand_in

FAKE = """#!/bin/bash
echo "$@" >> "{log}"
case "$*" in
  *version_info*) echo "3 10" ;;
  "-I -m venv "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; touch "$4/pyvenv.cfg" ;;
  "-I -m pip install "*) if [ -e "{fail}" ]; then echo "no space left on device" >&2; exit 1; fi ;;
esac
"""


class Place:
    """A folder with a stand-in Python 3.10 that writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.venv, self.python, self.log, self.fail = (folder / n for n in ("lava", "python3.10", "log", "fail"))
        self.python.write_text(FAKE.format(log=self.log, fail=self.fail))
        self.python.chmod(0o755)

    def calls(self, word: str) -> int:
        return self.log.read_text().count(word) if self.log.exists() else 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setenv("STL_DEPLOY_LAVA", str(made.venv))
    monkeypatch.delenv("STL_DEPLOY_PYTHON310", raising=False)
    monkeypatch.setattr(environment, "check_three_neurons", lambda python: None)
    return made


def test_nothing_there(place: Place) -> None:
    now = environment.status()
    assert not now.ready
    assert now.reason == f"no Lava environment at {place.venv}; run: stl_deploy.verbs.lava_install()"
    with pytest.raises(ToolError, match=r"verbs\.lava_install\(\)"):
        environment.require()


def test_installed_once(place: Place) -> None:
    said: list[str] = []
    assert environment.install(place.python, progress=said.append).ready
    assert environment.require() == place.venv / "bin" / "python"
    assert said[-1] == f"Lava is ready at {place.venv}"
    assert environment.install(place.python).ready
    assert (
        place.calls("-m venv"),
        place.calls("--require-hashes"),
    ) == (1, 1)


def test_a_failed_install_is_not_taken_for_a_good_one_and_is_built_anew(place: Place) -> None:
    place.fail.touch()
    with pytest.raises(ToolError, match="installing Lava failed: no space left on device"):
        environment.install(place.python)
    assert not environment.status().ready
    place.fail.unlink()
    assert environment.install(place.python).ready
    assert place.calls("-m venv") == 2


def test_an_environment_that_fails_its_check_is_not_ready(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(python: Path) -> None:
        raise ToolError("other spikes")

    monkeypatch.setattr(environment, "check_three_neurons", wrong)
    with pytest.raises(ToolError, match="other spikes"):
        environment.install(place.python)
    assert not environment.status().ready


def test_other_requirements_are_installed_again(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.install(place.python)
    newer = tmp_path / "requirements.txt"
    newer.write_text("lava-dl==0.6.0\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", newer)
    reason = environment.status().reason
    assert reason is not None
    assert "other packages than ours" in reason
    assert environment.install(place.python).ready
    assert (
        place.calls("-m venv"),
        place.calls("--require-hashes"),
    ) == (1, 2)


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"requirements": 1}'])
def test_a_damaged_stamp(stamp: str, place: Place) -> None:
    environment.install(place.python)
    (place.venv / environment.STAMP).write_text(stamp)
    assert not environment.status().ready


def test_two_installs_at_once(place: Place) -> None:
    with (place.venv.parent / f".{place.venv.name}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ToolError, match="another install of Lava is under way"):
            environment.install(place.python)
    assert environment.install(place.python).ready


def test_a_place_that_cannot_be_is_a_sentence(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.log.touch()
    monkeypatch.setenv("STL_DEPLOY_LAVA", str(place.log / "below" / "lava"))
    with pytest.raises(ToolError, match=r"cannot write .*/log/below: Not a directory"):
        environment.install(place.python)


def test_an_install_that_another_finished_meanwhile_is_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = environment.lock

    def late(where: Path, tool: str) -> AbstractContextManager[None]:
        monkeypatch.setattr(environment, "lock", lock)
        environment.install(place.python)
        return lock(where, tool)

    monkeypatch.setattr(environment, "lock", late)
    assert environment.install(place.python).ready
    assert place.calls("-m venv") == 1


def test_what_cannot_be_removed_or_started_is_a_sentence(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.install(place.python)

    def refuse(folder: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(ToolError, match=rf"cannot remove all of {place.venv}: Device or resource busy"):
        environment.remove()
    with pytest.raises(ToolError, match="creating failed: No such file or directory"):
        environment.step([place.venv / "absent"], "creating")


def test_an_uv_that_cannot_be_run_is_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    _from_uv(place, monkeypatch)
    (place.python.parent / "uv").write_bytes(b"no program")
    with pytest.raises(ToolError, match=r"no Python 3\.10 found"):
        environment.find_python((3, 10), "Lava")


def test_somebody_elses_folder_is_left_alone(place: Place) -> None:
    place.venv.mkdir()
    (place.venv / "thesis.tex").write_text("precious")
    with pytest.raises(ToolError, match="holds something that stl-deploy did not make"):
        environment.install(place.python)
    assert (place.venv / "thesis.tex").read_text() == "precious"


def test_a_wrong_python_is_refused_by_name(place: Place) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(ToolError, match=rf"expected Python 3\.10 for Lava; found Python {version}"):
        environment.install(Path(sys.executable))
    with pytest.raises(ToolError, match=r"expected Python 3\.10 for Lava; found no Python"):
        environment.install(Path("/bin/true"))


def _named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STL_DEPLOY_PYTHON310", str(place.python))


def _on_path(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{place.python.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")


def _under_pyenv(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    target = place.python.parent / "pyenv" / "versions" / "3.10.99" / "bin" / "python"
    target.parent.mkdir(parents=True)
    place.python.rename(target)
    place.python = target
    monkeypatch.setenv("PYENV_ROOT", str(place.python.parents[3]))


def _from_uv(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: str(place.python.parent / "uv") if name == "uv" else None)
    uv = place.python.parent / "uv"
    uv.write_text(f"#!/bin/bash\necho {place.python}\n")
    uv.chmod(0o755)


@pytest.mark.parametrize("way", [_named, _on_path, _under_pyenv, _from_uv])
def test_ways_to_find_a_python(
    way: Callable[[Place, pytest.MonkeyPatch], None], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    if way is not _on_path:
        monkeypatch.setattr("shutil.which", lambda name: None)
    way(place, monkeypatch)
    assert environment.find_python((3, 10), "Lava") == place.python


def test_no_python_anywhere(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ToolError, match=r"no Python 3\.10 found.*uv python install 3\.10"):
        environment.install()


def test_the_default_is_under_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STL_DEPLOY_LAVA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment.location() == tmp_path / "stl-deploy" / "lava-0.6.0"


@pytest.mark.parametrize("path", [environment.REQUIREMENTS, *(each.requirements for each in WITNESSES.values())])
def test_every_requirement_is_pinned_and_has_hashes(path: Path) -> None:
    text = path.read_text()
    lines = [line for line in environment.pins(path).splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .*)?", line) for line in lines)
    for line in lines:
        assert re.search(re.escape(line) + r"( \\\n    --hash=sha256:[0-9a-f]{64})+\n", text), line


def test_the_stamp_is_of_versions_not_of_hashes(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.install(place.python)
    bare = tmp_path / "bare.txt"
    bare.write_text(environment.pins(environment.REQUIREMENTS))
    monkeypatch.setattr(environment, "REQUIREMENTS", bare)
    assert environment.status().ready


def test_the_check_network_by_the_integer_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from stl_deploy.exporters.netx.convert import run_file
    from stl_deploy.exporters.netx.file import read_netx

    def ours(python: Path, path: Path, x: object, deadline: float) -> object:
        return run_file(read_netx(path), x, record=True).spikes  # type: ignore[arg-type]

    monkeypatch.setattr(environment, "run_worker", ours)
    environment.check_three_neurons(Path("python"))
    monkeypatch.setattr(environment, "EXPECTED", 1 - environment.EXPECTED)
    with pytest.raises(ToolError, match="other spikes than expected"):
        environment.check_three_neurons(Path("python"))


@pytest.mark.parametrize(
    ("answer", "y"),
    [({"layer1": [[[1]], [[0]]]}, [1, 0]), ({"layer1": [[1]]}, None), ({"layer2": [[[1]], [[0]]]}, None)],
)
def test_lavas_spikes_are_those_of_the_net_s_layers(
    answer: dict[str, Any], y: list[int] | None, place: Place, tmp_path: Path
) -> None:
    environment.install(place.python)
    stand_in.python(tmp_path, (3, 10)).rename(place.venv / "bin" / "python")
    write_npz(tmp_path / "answer.npz", {key: np.array(spikes) for key, spikes in answer.items()})
    net, x = chain((1,), dense([[2]], neuron=neuron(0, 1))), np.ones((2, 1, 1), np.int32)
    write_netx(net, tmp_path / "a.net")
    if y is None:
        with pytest.raises(ToolError, match=r"expected arrays \{'layer1': \(2, 1, 1\)\} from Lava; found"):
            run_lava(tmp_path / "a.net", x)
    else:
        assert run_lava(tmp_path / "a.net", x).y.reshape(-1).tolist() == y
    with h5py.File(tmp_path / "a.net", "r+") as file:
        file["layer/0/weight"], file["layer/0/bias"] = 1.0, [0.0]
        for key, value in (("type", b"LOIHI"), ("iDecay", 4096), ("vDecay", 1024), ("vThMant", 30)):
            file[f"layer/0/neuron/{key}"] = value
    with pytest.raises(InputError, match="x is the bias of its input layer's neurons, which is not set on real Lava"):
        run_lava(tmp_path / "a.net", x)


def test_removed_with_what_it_took(place: Place) -> None:
    environment.install(place.python)
    (place.venv / "large").write_bytes(bytes(10_000))
    where, size = environment.remove()
    assert where == place.venv
    assert size >= 10_000
    assert not place.venv.exists()
    with pytest.raises(ToolError, match="nothing to remove"):
        environment.remove()


def _their_environment(place: Path) -> Path:
    """A virtual environment of the user's own, of the right Python, with something precious in it."""
    (place / "bin").mkdir(parents=True)
    (place / "pyvenv.cfg").touch()
    (place / "bin" / "python").write_text(FAKE.format(log=place / "log", fail=place / "fail"))
    (place / "bin" / "python").chmod(0o755)
    (place / "precious.py").touch()
    return place / "precious.py"


def test_a_virtual_environment_of_somebody_else_is_left_alone(place: Place) -> None:
    precious = _their_environment(place.venv)
    for call in (lambda: environment.install(place.python), environment.remove):
        with pytest.raises(ToolError, match=r"stl-deploy did not make|is not an environment that"):
            call()
        assert precious.exists()
    assert not (place.venv / "log").exists()  # no package of ours went into it


def test_a_witness_leaves_a_virtual_environment_of_somebody_else_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path / "envs"))
    precious = _their_environment(tmp_path / "envs" / "brian2")
    for call in (lambda: BRIAN2.install(stand_in.python(tmp_path, (3, 12))), BRIAN2.remove):
        with pytest.raises(ToolError, match=r"stl-deploy did not make|is not an environment that"):
            call()
        assert precious.exists()


@pytest.mark.parametrize("half", ["marker alone", "no interpreter", "older release"])
def test_a_half_made_one_blocks_neither_install_nor_remove(
    half: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> None:
        (place.venv / "lib").mkdir(parents=True)
        if half == "older release":  # below our own cache folder a virtual environment is ours without a mark
            (place.venv / "pyvenv.cfg").touch()
            return
        (place.venv / environment.MARKER).touch()
        if half == "no interpreter":
            (place.venv / "pyvenv.cfg").touch()
            (place.venv / environment.UNFINISHED).touch()

    if half == "older release":
        monkeypatch.delenv("STL_DEPLOY_LAVA")
        monkeypatch.setenv("XDG_CACHE_HOME", str(place.venv.parent))
        place.venv = environment.location()
    make()
    assert environment.remove()[0] == place.venv
    assert not place.venv.exists()
    make()
    assert environment.install(place.python).ready


def test_an_install_that_dies_at_once_can_be_removed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(environment, "step", die)
    with pytest.raises(KeyboardInterrupt):
        environment.install(place.python)
    assert [path.name for path in place.venv.iterdir()] == [environment.MARKER]
    environment.remove()
    assert not place.venv.exists()


def test_through_a_link_its_target_is_emptied(place: Place, tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    place.venv.symlink_to(tmp_path / "large disk")
    assert environment.install(place.python).ready
    environment.remove()
    assert list((tmp_path / "large disk").iterdir()) == []


def test_a_home_of_nobody_is_a_name_as_any_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STL_DEPLOY_LAVA", "~nouser-of-this-name/lava")
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", "~nouser-of-this-name")
    assert environment.status().location == tmp_path / "~nouser-of-this-name" / "lava"
    assert "no environment of Brian2" in str(BRIAN2.reason())


@pytest.mark.parametrize("marked", [False, True])
def test_what_install_did_not_make_is_left_alone(place: Place, marked: bool) -> None:
    place.venv.mkdir()
    (place.venv / ("mine.txt" if marked else "pyvenv.cfg")).touch()
    if marked:
        (place.venv / environment.STAMP).touch()
    with pytest.raises(ToolError, match="remove it by hand"):
        environment.remove()
    assert place.venv.is_dir()
