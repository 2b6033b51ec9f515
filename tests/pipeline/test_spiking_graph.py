"""The verbs as methods, on a network small enough to follow by hand and on a whole run folder."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

import stl_deploy as stl
from stl_deploy.config.options import SimulateOptions
from stl_deploy.exporters.nir.dialect import PRESETS
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.nir.target import Reference
from stl_deploy.graph.readout import Readout
from stl_deploy.graph.run import Result
from stl_deploy.pipeline import simulate as simulating
from tests.graph.nets import a, chain, iff, steps


def _net(**options) -> stl.SpikingGraph:
    """v += 2·x0 + x1, a spike at v > 2, reset to 0."""
    return stl.SpikingGraph(chain([2], nir.Linear(a([2, 1])), iff((1,), theta=2.0)), **options)


X = steps([1, 0], [0, 1], [1, 1], [0, 0])  # v: 2, 3 spike, 3 spike, 0


def test_simulate_by_hand_on_arrays_tensors_and_lists() -> None:
    for x in (X, torch.from_numpy(X), torch.from_numpy(X).bool(), X.astype(np.int64)):
        result = _net().simulate(x)
        assert result.y.ravel().tolist() == [0, 1, 1, 0]
        assert result.spikes["n1"].shape == (4, 1, 1)
    np.testing.assert_array_equal(_net().simulate(X, backend="onnx").spikes["n1"], result.spikes["n1"])


def test_the_readout_is_applied_and_kept_in_the_file(tmp_path: Path) -> None:
    net = _net(readout=Readout("sum"))
    assert net.simulate(X).readout.tolist() == [[2]]
    assert _net().simulate(X).readout.shape == (4, 1, 1)
    net.export(tmp_path / "net.nir")
    assert stl.read(tmp_path / "net.nir").readout == Readout("sum")


def test_without_a_rule_over_time_the_scores_of_steps_are_added_up() -> None:
    weights = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]] * 3  # features 0 and 1 vote for class 0, 2 and 3 for class 1
    net = stl.SpikingGraph(chain([4], nir.Linear(weights), iff((4,), theta=2.0)), readout=Readout(None, population=2))
    x = np.zeros((3, 2, 4), np.float32)
    x[:2, 0, 1] = x[2, 1, 0] = 1
    assert net.evaluate([(x, np.array([1, 0]))]).accuracy == 1


def test_ten_lines(tmp_path: Path) -> None:
    net = stl.read(_file(tmp_path), dialect="spec")
    net.check("onnx").raise_if_unsupported()
    net = net.fold(thresholds="weights", input_grid=0)
    assert net.program.by_name["n1"].threshold in (1, np.nextafter(np.float32(1), np.float32(0)))
    manifest = net.export(tmp_path / "net.onnx", x=X)
    assert manifest["verified"]["runs"][0]["differing"] == 0
    assert manifest["verified"]["input"] == "1 sample of x"
    assert net.verify(tmp_path / "net.onnx", X).require().runs[0].compared == 4
    bill = net.energy(X)
    assert bill.totals["spikes"] == 2
    assert bill.totals["synops"] == 4
    assert json.dumps(bill.as_dict())
    assert "<html" in bill.to_html(tmp_path / "energy.html").read_text()
    assert (bill.to_figures(tmp_path / "figures") / "dominating.csv").is_file()
    assert "n1" in str(net)
    assert len(net.show(tmp_path / "graph.svg")) == 4
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")
    assert repr(net) == "<SpikingGraph 'their': 4 nodes, 1 spiking neurons>"
    assert repr(bill) == bill.as_dict()["verdict"]
    header, row = repr(net.verify(tmp_path / "net.onnx", X)).splitlines()
    assert header.startswith("run ")
    assert row.split()[:4] == ["net.onnx", "n1", "4", "0"]


def _file(folder: Path) -> Path:
    write_nir(chain([2], nir.Linear(a([2, 1])), iff((1,), theta=2.0)), folder / "their.nir")
    return folder / "their.nir"


def test_average_pools_go_into_weights_for_loihi(tmp_path: Path) -> None:
    pool = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    weights = nir.Linear((np.arange(32).reshape(4, 8) % 5 - 1).astype(np.float32) / 2)
    enter = nir.Conv2d((4, 4), np.ones((2, 2, 1, 1), np.float32), 1, 0, 1, 1, np.zeros(2, np.float32))
    nodes = enter, iff((2, 4, 4)), pool, nir.Flatten({"input": np.array([2, 2, 2])}, 0), weights, iff((4,))
    net = stl.SpikingGraph(chain([2, 4, 4], *nodes))
    with pytest.raises(stl.UnsupportedError, match=r"fold\(merge_pools=True\)"):
        net.export(tmp_path / "net.net")
    x = np.random.default_rng(0).integers(0, 2, (6, 3, 2, 4, 4)).astype(np.float32)
    merged = net.fold(merge_pools=True)
    np.testing.assert_array_equal(merged.simulate(x).y, net.simulate(x).y)
    assert 0 < net.simulate(x).y.mean() < 1
    merged.fold(thresholds="weights").export(tmp_path / "net.net", x=x)
    assert (tmp_path / "net.net").exists()


@pytest.mark.parametrize("backend", ["reference", "onnx"])
def test_a_stream_puts_out_what_simulate_does(backend: str) -> None:
    net = _net()
    stream = net.stream(backend)
    expected = net.simulate(X).y
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in X]), expected)
    twice = np.concatenate([X, X], axis=1)
    with pytest.raises(stl.InputError, match=r"call reset\(\)"):
        stream.step(twice[0])
    stream.reset()
    made = np.stack([stream.step(x_t) for x_t in twice])
    np.testing.assert_array_equal(made, np.concatenate([expected, expected], axis=1))


def test_a_backend_of_whole_sequences_makes_no_stream() -> None:
    with pytest.raises(stl.InputError, match=r"expected one that runs single steps \(.*reference.*\); found c"):
        _net().stream("c")


def _mean_error(scores: np.ndarray, targets: np.ndarray) -> float:
    return float(np.abs(scores[:, 0] - targets).mean())


def test_a_graph_rounds_real_input_to_its_grid_and_warns_once(tmp_path: Path) -> None:
    net = _net().fold(input_grid=3)
    x = np.random.default_rng(0).random(X.shape).astype(np.float32)
    rounded = np.round(x * 8) / 8
    expected = net.simulate(rounded).y
    assert 0 < expected.mean() < 1
    labels = np.arange(x.shape[1]) % 2
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(net.simulate(x).y, expected)
        for backend in ("reference", "onnx"):
            stream = net.stream(backend)
            np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), expected)
        net.export(tmp_path / "net.onnx", x=x)
        net.export(tmp_path / "c", to="c", x=x)
        assert net.verify(tmp_path / "net.onnx", x).require().runs[0].differing == 0
        assert net.energy(x).totals == net.energy(rounded).totals
        found, again = (
            net.evaluate([(given, labels)], time="first", backend=["onnx", "c"], metric=_mean_error)
            for given in (x, rounded)
        )
        assert found.as_dict() == again.as_dict()
    assert [str(each.message) for each in warned] == [
        "x is rounded to multiples of 2^-3, as the graph declares; shown once"
    ]
    with pytest.raises(stl.InputError, match="not on the grid"):
        net.simulate(x * 3)
    np.testing.assert_array_equal(
        net.simulate(x * 3, input_grid=1).y, net.simulate(np.round(x * 6) / 2, input_grid=1).y
    )


def test_a_stream_refuses_what_simulate_refuses() -> None:
    """Images of 0 to 255, and values beyond the grid, went through a graph whose sums are exact on values up to 1."""
    net = _net().fold(input_grid=3)
    for run in (net.stream().step, lambda x_t: net.simulate(x_t[None])):
        with pytest.raises(stl.InputError, match=r"not on the grid .*, multiples of 2\^-3 up to 1,"):
            run(np.full_like(X[0], 1.3))
        with pytest.raises(stl.InputError, match="8-bit images"):
            run(np.full(X[0].shape, 200, np.uint8))


def test_a_run_folder_brings_its_test_images(run_dir: Path, tmp_path: Path) -> None:
    net = stl.read(run_dir)
    assert net.readout == Readout("mean")
    assert net.verify(run_dir / "net.onnx").require().runs[0].differing == 0
    with np.load(run_dir / "test.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    loader = [(x[:, :100], y[:100]), (x[:, 100:], y[100:])]
    report = json.loads((run_dir / "verify.json").read_text())
    found = net.evaluate(loader)
    assert found.samples == len(y)
    assert found.accuracy == pytest.approx(report["accuracy"])
    assert (found.module_accuracy, found.compared) == (None, 0)
    assert found.as_dict() == {
        "samples": len(y),
        "accuracy": found.accuracy,
        "interval": list(found.interval or ()),
        "module_accuracy": None,
        "compared": 0,
        "differing": 0,
        "layers": {},
        "backends": {},
        "refused": {},
        "warnings": [],
        "reason": "",
    }
    batch_first = torch.utils.data.TensorDataset(torch.from_numpy(x.swapaxes(0, 1).copy()), torch.from_numpy(y))
    assert net.evaluate(batch_first, batch_size=50).accuracy == found.accuracy


def test_a_target_that_cannot_hold_it() -> None:
    net = stl.SpikingGraph(chain([2], nir.Linear(a([2, 1])), iff((1,), theta=2.0, v_reset=0.5)))
    with pytest.raises(stl.UnsupportedError, match="node 'n1': netx: "):
        net.check("netx").raise_if_unsupported()
    net.check("onnx").raise_if_unsupported()


def test_a_data_set_off_the_declared_grid_is_rounded_if_asked_for() -> None:
    """0.4 and 0.6 are 0 and 1 in integers, which class 1 spikes for; in eighths nothing spikes."""
    net = stl.SpikingGraph(chain([2], nir.Linear(a([2, -1], [-2, 1])), iff((2,), theta=0.5))).fold(input_grid=0)
    data = [(steps([0.4, 0.6]), np.array([1]))]
    with pytest.raises(stl.InputError, match="not on the grid that the graph declares, integers up to 1"):
        net.evaluate(data, time="first")
    assert net.evaluate(data, time="first", input_grid=0).accuracy == 1
    assert net.evaluate(data, time="first", input_grid=3).accuracy == 0


def test_static_samples_are_shown_for_some_steps() -> None:
    net = stl.SpikingGraph(chain([2], nir.Linear(a([2, 0], [0, 2])), iff((2,), theta=2.0)))
    data = torch.utils.data.TensorDataset(torch.eye(2), torch.tensor([0, 1]))
    assert net.evaluate(data, steps=2).accuracy == 1
    with pytest.raises(stl.InputError, match=r"batches are \[2, 2\], static samples without time; say how many steps"):
        net.evaluate(data)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "expected a labelled data set; found no batch in it"),
        (5, r"expected a labelled Dataset, a DataLoader or batches \(x, labels\); found int"),
        ([X], r"expected batches \(x, labels\); found a ndarray; give a labelled loader"),
        ([(X, [0.5])], r"expected integer labels \[B\]; found float64 \[1\]"),
        ([(X, [1])], r"expected one score for each of two classes or more, .*; found outputs of \[1, 1\]"),
        ([(X, [0, 0])], r"expected batches \[T, B, 2\] or \[B, T, ...\] with B labels; found \[4, 1, 2\] with 2"),
        ([(np.zeros((2, 2, 2)), [0, 0])], r"either axis may be time; say which: time='first' or time='second'"),
    ],
)
def test_wrong_data_to_evaluate(data, sentence) -> None:
    with pytest.raises(stl.InputError, match=sentence):
        _net().evaluate(data)


def test_nets_that_cannot_be_evaluated() -> None:
    image = stl.SpikingGraph(chain([2, 3], iff((2, 3))))
    with pytest.raises(
        stl.InputError, match=r"expected one score for each of two classes or more, \[B, classes\]; found outputs of"
    ):
        image.evaluate([(np.zeros((4, 1, 2, 3)), [0])])
    nodes = {name: nir.Input({"input": np.array([2])}) for name in "ab"}
    nodes |= {"lif": iff((2,)), "out": nir.Output({"output": np.array([2])})}
    several = stl.SpikingGraph(nir.NIRGraph(nodes, [("a", "lif"), ("b", "lif"), ("lif", "out")], type_check=False))
    with pytest.raises(stl.InputError, match="expected a network of one input; found 2; simulate it with one array"):
        several.evaluate([(X, [0])])


@pytest.mark.parametrize("time", ["inside", "step"])
def test_a_captured_module_is_evaluated_as_it_is_called(time) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.v = torch.nn.Linear(6, 3), 0.0

        def reset(self) -> None:
            self.v = 0.0

        def step(self, x):
            self.v = 0.5 * self.v + self.fc(x)
            z = (self.v > 0.2).float()
            self.v = self.v * (1 - z)
            return z

        def forward(self, x):
            return torch.stack([self.step(x) for _ in range(5)]) if time == "inside" else self.step(x)

    torch.manual_seed(0)
    model, x = Net(), torch.rand(4, 6) if time == "inside" else torch.rand(5, 4, 6)
    net = stl.capture(model, x, time=time)
    found = net.evaluate([(x, [0, 1, 2, 0]), (x, [0, 1, 2, 1])])
    assert (found.samples, found.differing) == (8, 0)
    assert found.accuracy == found.module_accuracy
    if time == "inside":
        with pytest.raises(stl.InputError, match=r"expected batches \[B, ...\] with B labels; found \[4, 6\] with 3"):
            net.evaluate([(x, [0, 1, 2])])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda net: net.simulate("spikes"), "expected an array of numbers; found a str; give a numpy array"),
        (lambda net: net.simulate(np.array([{}])), "found an array of object"),
        (lambda net: net.simulate(X[0]), r"input 'input': expected shape \[T, B, 2\] with T, B >= 1; found \[1, 2\]"),
        (lambda net: net.simulate(X * 1j), "input 'input': expected numbers; found complex"),
        (lambda net: net.simulate(X * np.nan), "found NaN"),
        (lambda net: net.simulate(X, backend="cuda"), "expected a backend: .*; found 'cuda'"),
        (lambda net: net.energy(), r"energy needs input: expected x of shape \[T, B, \*shape\]; found none"),
        (lambda net: net.verify("net.onnx"), "verify needs input"),
        (lambda net: net.export("net.pt"), r"net.pt: expected a name that ends in .nir \(nir\)"),
        (lambda net: net.show("graph.png"), "graph.png: expected a name that ends in .svg; found '.png'"),
        (lambda net: net.check("tpu"), "expected a target: .*; found 'tpu'"),
        (lambda net: net.fold(thresholds="weigths"), "found 'weigths' \\(did you mean 'weights'"),
        (
            lambda net: net.fold(delays="step"),
            "delays: expected one of keep, steps; found 'step' \\(did you mean 'steps'",
        ),
        (lambda net: net.export("net.onnx", form="steps"), "found 'steps' \\(did you mean 'step'"),
        (lambda net: net.export("net.onnx", precision="float"), "found 'float' \\(did you mean 'float32'"),
        (lambda net: net.export("net.nir", reader="snntorh"), "found 'snntorh' \\(did you mean 'snntorch'"),
        (lambda net: net.module(surrogate="arctn"), "found 'arctn' \\(did you mean 'arctan'"),
        (lambda net: net.export("net.onnx", shape="step"), "expected options of onnx: form, .*; found 'shape'"),
    ],
)
def test_wrong_calls(call, sentence, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(stl.InputError, match=sentence):
        call(_net())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_say_how_it_is_meant(tmp_path: Path) -> None:
    with pytest.raises(stl.InputError, match=r"does not say how it is meant, .*name the framework"):
        stl.read(_file(tmp_path))


def test_a_dialect_is_a_name_a_file_its_keys_or_itself(tmp_path: Path) -> None:
    file, path = _file(tmp_path), tmp_path / "d.json"
    path.write_text('{"preset": "stl", "dt": 0.5}')
    wanted = replace(PRESETS["stl"], dt=0.5)
    for given in (path, str(path), {"preset": "stl", "dt": 0.5}, wanted):
        assert stl.read(file, dialect=given).dialect == wanted
    with pytest.raises(stl.InputError, match=r"the dialect given: dialect key 'dt': .*; found 0"):
        stl.read(file, dialect={"dt": 0})
    with pytest.raises(stl.InputError, match=r"expected a dialect preset: .*; found 5"):
        stl.read(file, dialect=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("theta", "moves"), [(0.375, True), (0.5, False)])
def test_spikes_that_thresholds_in_weights_move_are_said(theta: float, *, moves: bool) -> None:
    """Ties of weights on a grid: divided by 0.375 they have no exact grid, by 0.5 they have."""
    rng = np.random.default_rng(1)
    weights = nir.Linear((rng.integers(-3, 4, (16, 12)) / 8).astype(np.float32))
    x = (rng.random((8, 6, 12)) < 0.5).astype(np.float32)
    net = stl.SpikingGraph(chain([12], weights, iff((16,), theta=theta)), sample=x)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folded = net.fold(thresholds="weights")
    before, after = (graph.simulate(x).spikes["n1"] for graph in (net, folded))
    differing = np.count_nonzero(before != after)
    assert (differing > 0) == moves
    expected = f"thresholds in weights: {differing} of {8 * 6 * 16} spikes and silences of 'n1' differ on the sample"
    assert [str(warning.message)[: len(expected)] for warning in caught] == [expected] * moves
    assert [warning.filename for warning in caught] == [__file__] * moves


def test_a_grid_of_the_input_is_not_taken_for_thresholds_in_weights() -> None:
    """Every threshold is 1: what moves on this grid moves with thresholds kept, too."""
    rng = np.random.default_rng(3)
    x = (rng.integers(0, 257, (40, 30, 200)) / 256).astype(np.float32)
    weights = nir.Linear(rng.normal(0, 0.1, (40, 200)).astype(np.float32))
    net = stl.SpikingGraph(chain([200], weights, iff((40,), theta=1.0)), sample=x)
    folded = net.fold(thresholds="weights", input_grid=8)  # a warning would be an error
    before, after = (graph.simulate(x).spikes["n1"] for graph in (net, folded))
    assert (before != after).any()


def test_layers_are_counted_in_parts_of_the_samples_beside_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """All spikes of all samples were kept at once for a warning."""
    net, sizes, whole = _net(), [], Reference.run
    x = np.concatenate([X] * 5, axis=1)

    def spied(self: Reference, given: np.ndarray, record: bool = False) -> Result:
        sizes.append(given.shape[1])
        return whole(self, given, record)

    monkeypatch.setattr(Reference, "run", spied)
    monkeypatch.setattr(simulating, "_KEPT", 2 * len(X) * 1)
    labels = np.zeros(x.shape[1], np.int64)
    found = simulating.simulate(net.program, x, "reference", SimulateOptions(), labels=labels)
    assert max(sizes) < x.shape[1] == sum(sizes)
    np.testing.assert_array_equal(found.y, net.simulate(x).y)
    assert (found.spikes, found.accuracy) == ({}, None)  # one value decides nothing


@pytest.mark.parametrize("target", ["c", "verilog", "netx"])
def test_check_names_weights_of_zero_that_export_refuses(tmp_path: Path, target: str) -> None:
    layers = (
        nir.Linear(a([2, 1])),
        iff((1,)),
        nir.Affine(np.zeros((3, 1), np.float32), np.full(3, 0.5, np.float32)),
        iff((3,)),
    )
    net = stl.SpikingGraph(chain([2], *layers))
    for refuse in (
        net.check(target).raise_if_unsupported,
        lambda: net.export(tmp_path / ("net.net" if target == "netx" else "net"), to=target, x=X),
    ):
        with pytest.raises(stl.UnsupportedError, match="it passes nothing on; leave it out"):
            refuse()


@pytest.mark.parametrize("name", ["save", "plot", "summary", "forward", "parameters", "state_dict"])
def test_names_of_other_frameworks_say_what_to_type(name: str) -> None:
    net = _net()
    with pytest.raises(AttributeError, match=r"; use (net\.|print\(net\))") as refused:
        getattr(net, name)
    method = str(refused.value).rpartition("; use ")[2].removeprefix("net.").split("(")[0]
    assert method == "print" or hasattr(net, method)
    with pytest.raises(stl.InputError, match=r"net\.simulate\(x\)"):
        net(None)
