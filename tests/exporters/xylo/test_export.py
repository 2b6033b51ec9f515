"""Exports: integers of each neuron's own scale, the folder read back, and its run in the graph's time frame."""

from __future__ import annotations

import json
import re
import runpy
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.errors import InputError, ToolError, UnsupportedError
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.targets import find_format
from stl_deploy.exporters.witnesses import environment
from stl_deploy.exporters.witnesses.environment import XYLOSIM
from stl_deploy.exporters.witnesses.target import XyloSim
from stl_deploy.exporters.xylo.choose import choose
from stl_deploy.exporters.xylo.devices import DEVICES
from stl_deploy.exporters.xylo.quantise import Extremes, Shifts, order, proved, rows, scales, specification
from stl_deploy.exporters.xylo.runner import Xylo, XyloOptions
from stl_deploy.exporters.xylo.simulate import load
from stl_deploy.exporters.xylo.simulate import simulate as on_chip
from stl_deploy.exporters.xylo.specification import checked
from stl_deploy.exporters.xylo.structure import structure
from stl_deploy.exporters.xylo.target import FILE, XyloFormat
from stl_deploy.graph.program import Program, Synapse
from stl_deploy.graph.run import run
from stl_deploy.pipeline.artifacts import ParityBench
from stl_deploy.verbs.artifacts import export, simulate
from stl_deploy.verbs.checking import check as check_source
from tests.exporters.xylo.nets import F, chain, changed, counts, graph_of

needs_xylosim = pytest.mark.skipif(XYLOSIM.reason() is not None, reason=str(XYLOSIM.reason()))


def agreement(program: Program, x: Any, **about: Any) -> float:
    """The least share of equal spikes of a population, against the reference."""
    expected = run(program, x.astype(F), record=[node.name for node in program.spiking]).recorded
    network = choose(program, x, **about).network
    runner = Xylo(program, XyloOptions())
    runner.network = network
    found = runner.run(x, record=True).recorded
    assert all(spikes.any() for spikes in expected.values())
    return min(float((found[name] == spikes).mean()) for name, spikes in expected.items())


@pytest.mark.parametrize("seed", range(3))
def test_spikes_are_nearly_the_references(seed: int) -> None:
    program = chain((4, 8, 6, 3), seed=seed)
    assert agreement(program, counts(program)) > 0.95


def test_a_neuron_may_have_any_scale() -> None:
    """Rows multiplied by a power of two, threshold and all, are the same integers on the chip."""
    program = chain()
    node = program.by_name["lif1"]
    factor = F(2.0) ** np.arange(-4, 4, dtype=F)
    scaled = changed(program, "lif1", threshold=node.threshold * factor)
    for name in ("linear1", "back"):
        scaled = changed(scaled, name, weight=program.by_name[name].weight * factor[:, None])
    x = counts(program)
    plain, other = (choose(one, x) for one in (program, scaled))
    assert plain.network.spec.arrays().keys() == other.network.spec.arrays().keys()
    for name, array in plain.network.spec.arrays().items():
        assert np.array_equal(array, other.network.spec.arrays()[name]), name


def test_a_synapse_that_adds_late_is_divided_by_its_decay() -> None:
    """NIR's own rule i = d·i + g·x is exp_add with weights divided by d."""
    program = chain(recurrent=False)
    euler = program
    for name in ("lif1", "lif2", "lif3"):
        synapse = program.by_name[name].synapse
        euler = changed(euler, name, synapse=Synapse("euler", synapse.decay, synapse.decay))
    x = counts(program)
    a, b = (choose(one, x).network.spec.arrays() for one in (program, euler))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def at_no_shift(program: Program) -> Any:
    net, extremes = structure(program), Extremes()
    run(program, counts(program).astype(F), observe=extremes)
    return specification(net, rows(net, extremes.largest), order(net), Shifts(0, 0, 0))


def test_what_must_be_above_the_threshold() -> None:
    program = chain()
    strict = program
    for name in ("lif1", "lif2", "lif3"):
        strict = changed(strict, name, compare="gt")
    assert np.array_equal(at_no_shift(strict).threshold, at_no_shift(program).threshold + 1)


def test_the_margin_holds_on_the_calibration_input() -> None:
    program = chain(seed=5)
    x = counts(program)
    assert all(fit.saturated == 0 for fit in choose(program, x).fits)


def test_what_is_proved_holds_for_the_loudest_input() -> None:
    """Ranges proved for an input of one spike a step: nothing saturates on the input that drives each neuron most."""
    program = chain((2, 4, 2), recurrent=False)
    x = np.ones((40, 3, 2), int)
    net, extremes = structure(program), Extremes()
    run(program, x.astype(F), observe=extremes)
    made, placed = rows(net, extremes.largest), order(net)
    spec = at_no_shift(program)
    assert proved(made["lif1"], spec, placed, {"input": 1}, "input")
    assert not proved(made["lif1"], spec, placed, {"input": 2000}, "input")
    assert not on_chip(spec, x).saturated.any()
    assert (scales(made["lif1"], "input", Shifts(0, 0, 0)) == 1).all()


def test_ranges_are_proved_for_the_most_spikes_of_a_channel() -> None:
    """Calibrated on silence, integers whose currents leave 16 bits at 15 spikes a step are not proved."""
    program = chain((16, 4, 2), recurrent=False)
    program = changed(program, "linear1", weight=np.full((4, 16), 127, F))
    chosen = choose(program, np.zeros((5, 1, 16), int))
    assert on_chip(chosen.network.spec, np.full((40, 1, 16), 15)).saturated.any()
    assert not chosen.fits[0].proved


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    program = chain(readout=True)
    write_nir(graph_of(program), tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x=counts(program))
    export(tmp_path / "net.nir", "xylo", tmp_path / "chip", input_file=tmp_path / "x.npz")
    return tmp_path / "chip"


def test_the_folder(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {"specification.npz", "neurons.json", FILE}
    manifest = json.loads((exported.parent / "chip.manifest.json").read_text())
    assert manifest["device"] == "audio2"
    assert manifest["skew"] == 2
    assert {fit["node"] for fit in manifest["layers"]} == {"lif1", "lif2", "lif3"}
    assert manifest["verified"]["runs"][0]["backend"] == "xylo"


def test_outputs_are_in_the_graphs_time_frame(exported: Path) -> None:
    program = chain(readout=True)
    x = counts(program)
    y = find_format("xylo").load(exported).run(x, record=True)
    expected = run(program, x.astype(F)).y
    assert y.y.shape == expected.shape
    assert np.abs(y.y - expected).mean() < 0.05 * np.abs(expected).mean()
    assert {"v__lif1", "i__lif1", "v__lif3", "i__lif3"} <= {*y.states}
    assert {*y.recorded} == {"lif1", "lif2"}


def test_simulate_writes_states(exported: Path) -> None:
    simulate(exported, exported.parent / "x.npz", "xylo", exported.parent / "y.npz", record=True)
    with np.load(exported.parent / "y.npz") as found:
        assert {"y", "spikes__lif1", "v__lif1", "i__lif3"} <= set(found)


@pytest.mark.parametrize("device", DEVICES)
def test_the_script_runs_on_what_rockpool_takes(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stand-ins with the shapes that Rockpool 3.1.0 takes, its outputs are those of our model, skew included."""
    program = chain()
    x = counts(program)
    chip = tmp_path / "chip"
    find_format("xylo").write(program, chip, XyloOptions(x=x, device=device))
    np.savez(tmp_path / "x.npz", x=x)

    def configure(*, weights_in: Any, weights_rec: Any, weights_out: Any, aliases: Any, **rows: Any) -> Any:
        assert weights_in.shape[0] == 4
        if device == "audio2":  # Rockpool's function for it counts the hidden neurons in weights_out
            assert len(weights_out) == len(weights_rec)
        assert aliases is None
        names = {"weights_in": weights_in, "weights_rec": weights_rec, "weights_out": weights_out}
        return checked({name: np.asarray(value) for name, value in (names | rows).items()}, "x"), True, ""

    class Board:
        def __init__(self, board: str, config: Any, dt: float, output_mode: str) -> None:
            assert (board, output_mode) == ("board", "Spike")
            self.config = config

        def evolve(self, sample: Any) -> Any:
            return on_chip(self.config, sample[:, None]).outputs[:, 0], None, None

    module = ModuleType(DEVICES[device].package)
    vars(module).update({"XyloSamna": Board, "config_from_specification": configure})
    vars(module)[DEVICES[device].finder] = lambda: ["board"]
    monkeypatch.setitem(sys.modules, f"rockpool.devices.xylo.{DEVICES[device].package}", module)
    for name in ("rockpool", "rockpool.devices", "rockpool.devices.xylo"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    script = runpy.run_path(str(chip / FILE))
    assert "UNTESTED" in script["__doc__"]
    script["main"](tmp_path / "x.npz", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found:
        np.testing.assert_array_equal(found["y"][2:], find_format("xylo").load(chip).run(x).y)
    np.savez(tmp_path / "x.npz", x=x - 1)
    with pytest.raises(SystemExit, match="spike counts 0 to 15"):
        script["main"](tmp_path / "x.npz", tmp_path / "y.npz")


def test_a_name_cannot_write_code_into_the_script(tmp_path: Path) -> None:
    program = chain()
    evil = 'a"""\nimport os; os.system("true")\n"""'
    options = XyloOptions(x=counts(program), origin={"source": evil})
    find_format("xylo").write(program, tmp_path / "chip", options)
    assert "os.system" not in (tmp_path / "chip" / FILE).read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["populations"][0]["neurons"].__setitem__(0, 99), "each of 14 hidden neurons once"),
        (lambda d: d["populations"][0].update(skew=-1), "a skew of 0"),
        (lambda d: d["populations"][0].update(skew=10**30), "a skew of 0"),
        (lambda d: d["populations"][0]["scale"].__setitem__(0, 0), "finite scales above 0"),
        (lambda d: d["populations"][0]["scale"].__setitem__(0, 1e999), "finite scales above 0"),
        (lambda d: d["populations"][0]["neurons"].__setitem__(0, 0.5), "damage (float, not int)"),
        (lambda d: d["populations"][0].update(spikes=0), "damage (int, not bool)"),
        (lambda d: d["populations"][0].update(node="lif2"), "a name twice"),
        (lambda d: d["output"]["weights"][0].__setitem__(0, 1e40), "weights beyond float32"),
        (lambda d: d.update(schema_version=2), "schema_version 2, not 1"),
        (lambda d: d["populations"].clear(), "each of 14 hidden neurons once"),
        (lambda d: d.pop("output"), "damage"),
        (lambda d: d["input"].update(shape=[3]), "an input of 4 channels"),
        (lambda d: d["output"].update(weights=[[1]]), "weights of the outputs"),
        (lambda d: d["populations"][0].update(where="somewhere"), "damage"),
        (lambda d: d.update(readout={"over_time": "sometimes"}), "over time"),
    ],
)
def test_a_damaged_layout_is_one_sentence(exported: Path, change: Any, words: str) -> None:
    path = exported / "neurons.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError) as caught:
        load(exported)
    assert words in str(caught.value)


def test_decays_that_are_no_shifts(tmp_path: Path) -> None:
    program = changed(chain(), "lif1", decay=F(0.9))
    x = counts(program)
    with pytest.raises(UnsupportedError, match="round_decays=True"):
        choose(program, x)
    assert choose(program, x, round_decays=True).network.spec.dash_mem.tolist()[:8] == [3] * 8


@pytest.mark.parametrize("decay", [F(0.75), F(0.9), F(0.6)])
def test_layers_that_agree_less_than_95_percent_are_named(decay: Any, tmp_path: Path) -> None:
    """Decays that are shifts agree; 0.9 and 0.6, rounded to 7 / 8 and 1 / 2, do not."""
    program = changed(chain(), "lif1", decay=decay)
    x, stream = counts(program), StringIO()
    options = XyloOptions(x=x, round_decays=True, say=Console(stream=stream))
    fits = XyloFormat().write(program, tmp_path / "xylo", options)["layers"]
    far = [fit["node"] for fit in fits if fit["differing"] is not None and fit["differing"] > 0.05 * fit["compared"]]
    named = [line.split()[1].rstrip(":") for line in stream.getvalue().splitlines() if line.startswith("warning: ")]
    assert named == far
    assert bool(far) == (decay != F(0.75))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.full((3, 1, 4), 0.5), "fractions"),
        (np.full((3, 1, 4), -1), "found -1"),
        (np.full((3, 1, 4), 16), "found 16"),
    ],
)
def test_bad_input(x: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        choose(chain(), x)
    errors = [each for each in XyloFormat().check_for(chain(), XyloOptions(x=x)) if each.severity == "error"]
    assert len(errors) == 1
    assert re.search(words, errors[0].reason)


def test_check_refuses_input_that_export_refuses(exported: Path) -> None:
    source, x = exported.parent / "net.nir", counts(chain())
    assert check_source(source, targets=["xylo"], x=x).ok
    assert not check_source(source, targets=["xylo"], x=x - 1).ok
    assert not check_source(source, targets=["xylo"], x=x - 1, device="imu").ok


def test_check_takes_the_device_of_targets_that_have_one(exported: Path) -> None:
    source = exported.parent / "net.nir"
    assert check_source(source, targets=["xylo"], device="imu").targets == {"xylo": "approximate"}
    with pytest.raises(InputError, match=r"expected targets .*xylo for option 'device'"):
        check_source(source, targets=["onnx"], device="imu")
    assert "xylo" not in check_source(source).targets


def test_states_that_differ_fail_the_comparison() -> None:
    program = chain()
    x = counts(program)

    class Off(XyloSim):
        def integers(self, *given: Any) -> Any:
            found = Xylo.integers(self, *given)
            found.states.v[3, 0, 1] += 1
            return found

    bench = ParityBench(program, x)
    bench.compare("off", Off(program, XyloOptions(x=x)), program)
    against = bench.runs[-1]
    assert against.required
    assert against.differing == 0
    assert not against.exact
    with pytest.raises(Exception, match="potentials or currents differ"):
        against.require()


@pytest.mark.nightly
@needs_xylosim
@pytest.mark.parametrize("readout", [False, True])
def test_xylosim_has_every_spike_and_state(readout: bool) -> None:
    program = chain(seed=3, readout=readout)
    x = counts(program)
    bench = ParityBench(program, x)
    bench.compare("xylosim", XyloSim(program, XyloOptions(x=x)), program)
    assert bench.runs[-1].exact
    assert bench.runs[-1].states
    bench.runs[-1].require()


def test_no_compiler_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=r"expected a C\+\+ compiler"):
        XYLOSIM.install()
    assert not (tmp_path / "xylosim").exists()


def test_a_compiler_that_fails_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> None:
        raise ToolError("installing xylosim failed: ERROR: Could not build wheels for xylosim")

    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path))
    monkeypatch.setattr(environment, "create", lambda *given: None)
    monkeypatch.setattr(environment, "find_python", lambda *given: None)
    monkeypatch.setattr(environment, "fill", fail)
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    with pytest.raises(ToolError, match=r"Could not build wheels for xylosim; check that 'g\+\+' compiles"):
        XYLOSIM.install()
    assert XYLOSIM.reason() is not None


def test_without_xylosim_the_remedy_is_its_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path))
    program = chain()
    with pytest.raises(ToolError, match=r"witness_install\('xylosim'\)"):
        XyloSim(program, XyloOptions(x=counts(program))).run(counts(program))
