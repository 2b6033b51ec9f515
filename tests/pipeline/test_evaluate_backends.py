"""A labelled data set through several backends: accuracy with its interval, and spikes that differ from the graph's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import stl_deploy as stl
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.c.compiler import find_compiler
from stl_deploy.exporters.nir.target import Reference
from stl_deploy.exporters.targets import registry
from stl_deploy.graph.run import NetworkInput, Result
from tests.exporters.xylo.nets import chain, counts


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 16), []
        for step in x:
            v = 0.75 * v + self.fc1(step)
            s = (v > 0.3).float()
            v = v * (1 - s)
            out.append(self.fc2(s))
        return torch.stack(out)


@pytest.fixture(scope="module")
def net() -> stl.SpikingGraph:
    return stl.capture(Net(), torch.bernoulli(torch.full((8, 5, 12), 0.4)))


@pytest.fixture(scope="module")
def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.bernoulli(torch.full((40, 8, 12), 0.4), generator=generator)
    return TensorDataset(x, torch.randint(3, (40,), generator=generator))


def test_every_backend_is_beside_the_graph(net: stl.SpikingGraph, data: TensorDataset) -> None:
    names = ["onnx", "loihi", "c"] if find_compiler() is not None else ["onnx", "loihi"]
    found = net.evaluate(DataLoader(data, batch_size=20), backend=names)
    assert list(found.backends) == names
    assert found.backends["onnx"].accuracy == found.accuracy == found.module_accuracy
    assert (found.backends["onnx"].compared, found.backends["onnx"].differing) == (40 * 8 * 16, 0)
    for name in names[1:]:
        one = found.backends[name]
        assert one.compared == 40 * 8 * 16
        assert one.differing < 0.2 * one.compared
        assert one.interval[0] <= one.accuracy <= one.interval[1]
    lines = str(found).splitlines()
    reasons = [f"{name}:" for name in names[1:] if found.backends[name].differing]
    assert [line.split()[0] for line in lines] == ["label", "graph", "module", *names, "40", *reasons]
    assert set(found.as_dict()["backends"]) == set(names)


class Meets(Net):
    """Weights whose sum for input of ``x`` is the threshold, or misses it by rounding."""

    def __init__(self, x: float = 1.0) -> None:
        super().__init__()
        nn.init.zeros_(self.fc1.bias)
        with torch.no_grad():
            self.fc1.weight.abs_().mul_(0.3 / x / self.fc1.weight.sum(1, keepdim=True))


class Changed(Reference):
    """The graph, but for the spikes of one step."""

    name = "changed"
    agrees_with = None

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        result = super().run(x, record)
        (name,) = result.recorded
        spikes = result.recorded[name].copy()
        spikes[3] = 1 - spikes[3]
        return Result(result.outputs, {name: spikes})


def test_differing_spikes_have_the_reason_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that fold rounds, integers, and sums in another order; none for spikes that nothing explains."""
    monkeypatch.setitem(registry().runners, "changed", Changed)
    generator = torch.Generator().manual_seed(1)
    net = stl.capture(Meets(), torch.rand(8, 5, 12, generator=generator)).fold(input_grid=8)
    found = net.evaluate([(np.ones((8, 4, 12)), np.arange(4) % 3)], backend=["onnx", "loihi", "changed"])
    assert found.differing
    assert "fold rounded the graph's weights" in found.reason
    assert found.backends["onnx"].reason == ""
    assert "integers" in found.backends["loihi"].reason
    assert found.backends["changed"].differing
    assert found.backends["changed"].reason == ""
    assert [line.split(":")[0] for line in str(found).splitlines()[-2:]] == ["module", "loihi"]
    assert found.as_dict()["reason"] == found.reason


def test_sums_in_another_order_are_the_reason_where_each_layer_parts_at_its_thresholds() -> None:
    generator = torch.Generator().manual_seed(1)
    net = stl.capture(Meets(0.7), torch.rand(8, 5, 12, generator=generator))
    # products of 0.7 are rounded, too, so even processors that add in the order of C round otherwise, by fused sums
    found = net.evaluate([(np.full((8, 4, 12), 0.7, np.float32), np.arange(4) % 3)], backend=["c_floats"])
    assert found.backends["c_floats"].differing
    assert "float32 sums" in found.backends["c_floats"].reason


def test_targets_are_backends_of_their_models(net: stl.SpikingGraph, data: TensorDataset) -> None:
    found = net.evaluate(DataLoader(data, batch_size=20), backend=["netx", "loihi"])
    assert found.backends["netx"].differing == found.backends["loihi"].differing
    assert found.backends["netx"].accuracy == found.backends["loihi"].accuracy


@pytest.mark.parametrize(("bias", "word"), [(-100.0, "silent"), (100.0, "saturated")])
def test_an_accuracy_of_a_silent_or_saturated_network_says_so(data: TensorDataset, bias: float, word: str) -> None:
    """A table of accuracies and no differing spike was quoted of networks that decide nothing."""
    model = Net()
    nn.init.constant_(model.fc1.bias, bias)
    with pytest.warns(UserWarning, match=word):
        net = stl.capture(model, torch.bernoulli(torch.full((8, 5, 12), 0.4)))
    found = net.evaluate(DataLoader(data, batch_size=20))
    (warning,) = found.warnings
    assert f"a {word} layer proves nothing" in warning
    assert str(found).endswith(warning)
    assert found.as_dict()["warnings"] == [warning]


def test_a_square_batch_is_read_as_the_batches_before(net: stl.SpikingGraph, data: TensorDataset) -> None:
    """The last of 40 samples in batches of 16 has as many samples as steps, and nothing was left to ask."""
    assert net.evaluate(DataLoader(data, batch_size=16)).accuracy == net.evaluate(data).accuracy
    x, labels = data.tensors
    parts = [slice(0, 32), slice(32, 40)]
    time_first = [(x[part].transpose(0, 1), labels[part]) for part in parts]
    assert net.evaluate(time_first).accuracy == net.evaluate(data).accuracy
    with pytest.raises(InputError, match=r"\[8, 8, 12\], where either axis may be time; say which"):
        net.evaluate(DataLoader(data, batch_size=8))
    assert net.evaluate(DataLoader(data, batch_size=8), time="second").accuracy == net.evaluate(data).accuracy


def test_a_square_batch_is_read_as_the_module_was_captured(data: TensorDataset) -> None:
    class BatchFirst(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.transpose(0, 1))

    net = stl.capture(BatchFirst(), data.tensors[0][:5], time="second")
    assert net.evaluate(DataLoader(data, batch_size=8)).accuracy == net.evaluate(data).accuracy


def test_axes_that_labels_tell_apart_are_not_warned_of(net: stl.SpikingGraph, data: TensorDataset) -> None:
    """8 samples of 5 steps, of a net captured on 8 steps: the remedy, to swap them, changed nothing."""
    x, labels = data.tensors
    net.evaluate([(x[:8, :5], labels[:8]), (x[:8, :5].transpose(0, 1), labels[:8])])  # a warning would be an error


def test_warnings_point_at_the_caller_s_line(net: stl.SpikingGraph) -> None:
    with pytest.warns(UserWarning, match="swapaxes") as caught:
        net.simulate(np.zeros((5, 8, 12), np.float32))
    assert [warning.filename for warning in caught] == [__file__]


def test_a_simulation_prints_its_arrays_shapes_and_warnings(net: stl.SpikingGraph) -> None:
    """Printed, it was hundreds of lines of numbers."""
    quiet = net.simulate(np.zeros((8, 2, 12)))
    assert re.search(r"^y +\[8, 2, 3\]$", repr(quiet), re.MULTILINE)
    assert len(repr(quiet).splitlines()) <= 6


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
def test_integers_are_chosen_once_and_labels_alone_decide(net: stl.SpikingGraph, data: TensorDataset) -> None:
    whole = net.evaluate(DataLoader(data, batch_size=40), backend="c").backends["c"]
    parts = net.evaluate(DataLoader(data, batch_size=7), backend="c").backends["c"]
    assert (whole.accuracy, whole.differing) == (parts.accuracy, parts.differing)
    x, labels = data.tensors
    y = net.simulate(x.swapaxes(0, 1).numpy(), backend="c")
    assert 0 < np.mean(y.readout.reshape(8, 40, 3).sum(0).argmax(-1) == labels.numpy()) < 1


def test_the_interval_is_exact() -> None:
    from stl_deploy.energy.paired import accuracy_interval

    low, high = accuracy_interval(8, 10)  # Clopper and Pearson, as tables have it
    assert (round(low, 4), round(high, 4)) == (0.4439, 0.9748)
    assert accuracy_interval(0, 10)[0] == 0
    assert accuracy_interval(10, 10)[1] == 1


def test_what_no_backend_takes_is_refused(net: stl.SpikingGraph, data: TensorDataset) -> None:
    with pytest.raises(InputError, match=r"expected a backend: .*; found 'onx'"):
        net.evaluate(DataLoader(data, batch_size=20), backend="onx")
    with pytest.raises(UnsupportedError, match="node"):
        net.evaluate(DataLoader(data, batch_size=20), backend="xylo")


def test_a_backend_that_does_not_hold_the_network_costs_the_others_nothing(
    net: stl.SpikingGraph, data: TensorDataset
) -> None:
    batches = DataLoader(data, batch_size=20)
    result = net.evaluate(batches, backend=["onnx", "xylo"])
    assert result.backends == net.evaluate(batches, backend="onnx").backends
    assert re.match(r"node '\w+': .* \(backend 'xylo'\); ", result.refused["xylo"])
    assert result.as_dict()["refused"] == result.refused
    assert re.search(r"^xylo +refused$", str(result), re.MULTILINE)
    assert f"xylo: {result.refused['xylo']}" in str(result).splitlines()


def test_xylo_is_beside_its_graph_as_simulate_runs_it() -> None:
    program = chain()
    x = counts(program, batch=12)
    net = stl.SpikingGraph(program)
    labels = np.random.default_rng(2).integers(0, program.outputs[0].shape[0], 12)
    chip = net.evaluate([(x, labels)], backend=["xylo", "torch"]).backends["xylo"]
    alone = net.simulate(x, backend="xylo")
    assert chip.compared == sum(spikes.size for spikes in alone.spikes.values())
    assert chip.accuracy == float((alone.y.sum(0).argmax(-1) == labels).mean())
    reference = net.simulate(x)
    assert chip.differing == sum(int((s != reference.spikes[n]).sum()) for n, s in alone.spikes.items())
    assert 0 < chip.differing < 0.1 * chip.compared


def test_an_artifact_is_run_from_its_path(net: stl.SpikingGraph, data: TensorDataset, tmp_path: Path) -> None:
    onnx, integers = tmp_path / "net.onnx", tmp_path / "net.net"
    net.export(onnx)
    net.export(integers)
    loader = DataLoader(data, batch_size=20)
    found = net.evaluate(loader, backend=[onnx, str(integers), "c"])
    assert list(found.backends) == ["net.onnx", "net.net", "c"]
    assert (found.backends["net.onnx"].compared, found.backends["net.onnx"].differing) == (40 * 8 * 16, 0)
    assert found.backends["net.net"].differing > 0
    with pytest.raises(InputError, match=r"gone\.onnx: expected an artifact that 'export' wrote; found no such file"):
        net.evaluate(loader, backend=tmp_path / "gone.onnx")


def test_square_batches_read_by_assumption_are_asked_about_where_a_later_batch_tells(data: TensorDataset) -> None:
    """Batches [T, B, ...] of a net captured with time='second' were read as [B, T, ...], if they were square."""

    class BatchFirst(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.transpose(0, 1))

    net = stl.capture(BatchFirst(), data.tensors[0][:5], time="second")
    x, labels = data.tensors
    batches = [(x[part].transpose(0, 1), labels[part]) for part in (slice(0, 8), slice(8, 13))]
    with pytest.raises(InputError, match=r"one of \[8, 5, 12\] with 5 labels has time='first'; say it for all"):
        net.evaluate(batches)
    in_order = [(x[:8], labels[:8]), (x[8:13], labels[8:13])]
    assert net.evaluate(batches, time="first").accuracy == net.evaluate(in_order).accuracy


def test_integers_are_chosen_on_input_beyond_the_sample(net: stl.SpikingGraph, data: TensorDataset) -> None:
    """As simulate and verify do; a later batch beyond the first is named in the user's own numbers."""
    x, labels = data.tensors
    loud = TensorDataset(x * torch.linspace(0, 2, 12), labels)
    counts = net.evaluate(loud, backend="c", input_grid=8).backends["c"]
    assert counts.differing < 0.2 * counts.compared
    batches = [(x[:20], labels[:20]), (2 * x[20:], labels[20:])]
    with pytest.raises(
        InputError, match=r"expected input from 0 to 1, for which its integers were chosen .*; found 0 to 2; give"
    ):
        net.evaluate(batches, backend="c", input_grid=8)
    net.evaluate(batches[::-1], backend="c", input_grid=8)
    found = [net.evaluate(order, backend="loihi", input_grid=8) for order in (batches, batches[::-1])]
    one, other = (each.backends["loihi"].differing for each in found)
    assert one == other  # it takes such input: the sample's integers stay


def test_labels_that_count_from_one(net: stl.SpikingGraph, data: TensorDataset) -> None:
    x, labels = data.tensors
    with pytest.raises(InputError, match=r"expected labels from 0 to 2, .*; found 3 .*; count them from 0: y - 1"):
        net.evaluate(TensorDataset(x, labels + 1))
    with pytest.raises(InputError, match=r"expected labels from 0 to 2, .*; found 7 of sample"):
        net.energy(x.swapaxes(0, 1), torch.full((40,), 7), margin=0.01)
    net.energy(x.swapaxes(0, 1), torch.full((40,), -1))  # counts need no classes
