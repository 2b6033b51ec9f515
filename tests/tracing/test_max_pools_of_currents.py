"""Max pools between weights and neurons: captured with proof, then ONNX, C and energy counts, spike for spike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c.compiler import find_compiler
from stl_deploy.graph.program import MaxPool, Scale
from stl_deploy.verbs.capturing import capture as capture_file


class Leaky(nn.Module):
    """As snnTorch's with ``init_hidden``: the reset of a spike waits for the next step."""

    def __init__(self, beta: float = 0.9, threshold: float = 0.5) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold
        self.mem: Tensor | None = None

    def reset(self) -> None:
        self.mem = None

    def forward(self, x: Tensor) -> Tensor:
        mem = torch.zeros_like(x) if self.mem is None else self.mem
        late = (mem - self.threshold > 0).float()
        self.mem = self.beta * mem + x - late * self.threshold
        return (self.mem - self.threshold > 0).float()


def _norm(channels: int, least: float, kind: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    made: Any = kind(channels)
    with torch.no_grad():
        made.weight.uniform_(least, 2)
        made.bias.normal_(0, 0.3)
        made.running_mean.normal_(0, 0.3)
        made.running_var.uniform_(0.3, 2)
    return made


def _net(*between: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), *between, Leaky(), nn.Flatten(), nn.Linear(features, 3), Leaky())


def _nets() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(3)
    image = (1, 10, 10)
    line = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.MaxPool1d(2), Leaky(), nn.Conv1d(4, 5, 3), nn.MaxPool1d(3, 1, 1), Leaky()
    )
    return {
        "conv, pool": (_net(nn.MaxPool2d(2), features=64), image),
        "conv, norm, pool": (_net(_norm(4, -2), nn.MaxPool2d(2), features=64), image),
        "conv, pool, norm": (_net(nn.MaxPool2d(2), _norm(4, 0.2), features=64), image),
        "conv, pool, norm that turns signs": (_net(nn.MaxPool2d(2), _norm(4, -2), features=64), image),
        "overlapping, padded": (_net(nn.MaxPool2d(3, 2, 1), features=64), image),
        "two pools": (_net(nn.MaxPool2d(2), nn.MaxPool2d((1, 2)), features=32), image),
        "one axis": (line, (2, 12)),
        "of the input": (nn.Sequential(nn.MaxPool2d(2), *_net(features=36)), image),
    }


def _captured(name: str) -> stl.SpikingGraph:
    model, shape = _nets()[name]
    torch.manual_seed(1)
    return stl.capture(model, torch.randint(0, 17, (4, 3, *shape)) / 16, time="step")


@pytest.mark.push(3)
@pytest.mark.parametrize("name", _nets())
def test_it_is_captured_and_onnx_and_c_spike_alike(name: str, tmp_path: Path) -> None:
    net = _captured(name)
    assert any(net.program.of(MaxPool))
    assert all(0 < layer.rate < 1 for layer in net.proof.layers)
    assert net.proof.end_to_end["differing"] == 0
    for form in ("sequence", "step"):
        done = net.export(tmp_path / f"{form}.onnx", form=form)
        assert [run["differing"] for run in done["verified"]["runs"]] == [0]
    if find_compiler() is not None:
        done = net.export(tmp_path / "c", to="c", input_grid=4)
        (integers,) = [run for run in done["verified"]["runs"] if "against" in run["run"]]
        assert integers["differing"] == 0
        assert all(run["agreement"] > 0.95 for run in done["verified"]["runs"])


def test_a_norm_behind_the_pool_goes_into_the_weights_before_it() -> None:
    kinds = [type(node).__name__ for node in _captured("conv, pool, norm").program.nodes]
    assert kinds == ["Input", "Conv", "MaxPool", "Neuron", "Reshape", "Linear", "Neuron", "Output"]
    (signs,) = _captured("conv, pool, norm that turns signs").program.of(Scale)
    assert set(np.unique(signs.scale)) == {-1.0, 1.0}


def test_who_cannot_hold_it_says_so_by_node(tmp_path: Path) -> None:
    net = _captured("conv, pool")
    found = net.check("nir", "netx", "onnx", "c", input_grid=4)
    assert found.targets == {
        "nir": "unsupported",
        "netx": "unsupported",
        "onnx": found.targets["onnx"],
        "c": "approximate",
    }
    refused = {(f.node, f.target) for f in found.findings if f.severity == "error" and f.slug == "kind-not-taken"}
    assert refused == {("1", "nir"), ("1", "netx")}
    for call in (lambda: net.graph, lambda: net.export(tmp_path / "net.nir"), lambda: net.export(tmp_path / "net.net")):
        with pytest.raises(UnsupportedError, match=r"node '1': (nir|netx) takes no max pool of currents"):
            call()
    with pytest.raises(UnsupportedError, match="training in integers takes no max pool of currents"):
        net.quantised()
    assert list(tmp_path.iterdir()) == []


def test_a_folded_one_spikes_alike_on_an_exact_grid() -> None:
    net = _captured("conv, pool, norm")
    folded = net.fold(input_grid=4)
    a, b = (one.simulate(net.sample, input_grid=4).spikes for one in (net, folded))
    differing = sum(int((a[name] != b[name]).sum()) for name in a)
    assert differing < 0.01 * sum(spikes.size for spikes in a.values())
    assert folded.check("onnx").targets == {"onnx": "faithful"}


def test_the_proof_of_a_folded_graph_says_that_it_is_of_the_graph_before() -> None:
    net = _captured("conv, pool")
    assert str(net.proof).startswith("replayed: ")
    unchanged = net.fold(exact_grid=False)
    assert (str(unchanged.proof), unchanged.proof.before_fold) == (str(net.proof), False)
    for folded in (net.fold(), net.fold(input_grid=2), net.fold(input_grid=2).fold()):
        assert str(folded.proof).startswith("of the graph before fold (evaluate() counts spikes that fold changes): ")
        assert folded.proof.as_dict()["before_fold"] is True


def test_a_program_file_is_read_back(tmp_path: Path) -> None:
    net = _captured("two pools")
    net.export(tmp_path / "net.program")
    read = stl.read(tmp_path / "net.program")
    np.testing.assert_array_equal(read.simulate(net.sample).y, net.simulate(net.sample).y)
    assert str(read.readout) == str(net.readout)
    assert read.energy(net.sample).as_dict()["totals"] == net.energy().as_dict()["totals"]


def test_every_verb_takes_a_program_file(tmp_path: Path) -> None:
    net = _captured("conv, pool")
    net.export(tmp_path / "net.program")
    np.savez(tmp_path / "x.npz", x=net.sample, y=np.zeros(net.sample.shape[1], np.int64))
    source, x = tmp_path / "net.program", tmp_path / "x.npz"
    verbs.export(source, "onnx", tmp_path / "net.onnx", input_file=x)
    assert verbs.check(source, targets=["onnx", "nir"]).targets["nir"] == "unsupported"
    assert [row["kind"] for row in verbs.show(source)][2] == "MaxPool"
    folded = verbs.fold(source, tmp_path / "folded.program", options=FoldOptions(exact_grid=True, input_grid=4))
    assert folded["exact"]
    page = verbs.report_graph(source, x, output=tmp_path / "report")
    assert page["energy"]["layers"]["1"]["max_compares"] > 0
    assert "max pool" in (tmp_path / "report" / "report.html").read_text()


def test_the_verb_names_the_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\nfrom tests.tracing.test_max_pools_of_currents import _net\n"
        "def make():\n    torch.manual_seed(3)\n    return _net(nn.MaxPool2d(2), features=64)\n"
    )
    np.savez(tmp_path / "x.npz", x=4 * np.random.default_rng(0).random((4, 3, 1, 10, 10), np.float32))
    arguments = f"{tmp_path / 'mine.py'}:make", tmp_path / "x.npz"
    with pytest.raises(
        UnsupportedError, match=r"node '1': nir takes no max pool .* output=.*net\.program', which the other"
    ):
        capture_file(*arguments, tmp_path / "net.nir", time="step")
    assert not (tmp_path / "net.nir").exists()
    capture_file(*arguments, tmp_path / "net.program", time="step")
    assert any(stl.read(tmp_path / "net.program").program.of(MaxPool))


class Scaled(nn.Module):
    """Spikes times a number, then a max pool, a layer and neurons unless ``ends``."""

    def __init__(self, scale: float, pools: bool = True, ends: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 2)
        self.scale, self.pools, self.ends = scale, pools, ends

    def forward(self, x: Tensor) -> Tensor:
        first, last, out = Leaky(threshold=0.2), Leaky(threshold=0.1), []
        for step in x:
            spikes = self.scale * first(self.first(step))
            pooled = nn.functional.max_pool2d(spikes, 2) if self.pools else spikes
            out.append(pooled if self.ends else last(self.last(pooled)))
        return torch.stack(out)


@pytest.mark.parametrize(
    ("model", "slug", "sentence"),
    [
        (Scaled(-0.5), "max-pool-sign", r"node 'pool1': it reads values times -0.5, and the largest of these is"),
        (Scaled(-0.5, pools=False, ends=True), "output-sign", r"node 'output': it puts out values times -0.5, and"),
    ],
)
def test_spikes_times_a_number_below_0_are_not_pooled_or_put_out_by_integers(
    model: Scaled, slug: str, sentence: str, tmp_path: Path
) -> None:
    x = (torch.rand(6, 3, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.4).float()
    net = stl.capture(model, x)
    assert slug in [finding.slug for finding in net.check("c").findings]
    with pytest.raises(UnsupportedError, match=sentence):
        net.export(tmp_path / "c", to="c")
    assert not (tmp_path / "c").exists()
    net.export(tmp_path / "net.onnx")


def test_spikes_times_a_number_below_0_reach_weights_in_integers(tmp_path: Path) -> None:
    x = (torch.rand(6, 3, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.4).float()
    net = stl.capture(Scaled(-0.5, pools=False), x)
    net.check("c").raise_if_unsupported()
    assert 0.02 < np.mean(net.simulate(x).spikes["lif2"]) < 0.98
    if find_compiler() is not None:
        runs = net.export(tmp_path / "c", to="c")["verified"]["runs"]
        differing = {run["against"]: run["differing"] / run["compared"] for run in runs}
        assert differing["loihi"] == 0
        assert differing["reference"] < 0.05


def test_currents_that_lower_the_potential_are_not_pooled_by_integers(tmp_path: Path) -> None:
    """A gain below 0 would go into the weights before the pool."""

    class Inhibits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros(x.shape[1], 2, 3, 3), []
            for step in x:
                v = 0.75 * v - 0.5 * nn.functional.max_pool2d(self.conv(step), 2)
                out.append((v > 0.1).float())
                v = v - 0.1 * out[-1]
            return torch.stack(out)

    x = (torch.rand(6, 3, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.4).float()
    net = stl.capture(Inhibits(), x)
    with pytest.raises(UnsupportedError, match=r"node 'pool1': the gain of 'lif1' behind it is below 0, which turns"):
        net.export(tmp_path / "c", to="c")
    assert "max-pool-sign" in [finding.slug for finding in net.check("c").findings]
