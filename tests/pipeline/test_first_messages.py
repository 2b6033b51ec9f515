"""Messages that users meet in their first minutes: each names its consequence and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy._util.remedies import command_line

SPIKES = (torch.rand(6, 4, 1, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.3).float()


class Residual(nn.Module):
    """Three populations by hand; the first one's spikes are added to the second's currents or to its spikes.

    way: ``bare``, ``weights`` (a convolution of kernel 1 on the skip), or ``behind`` (added behind the neurons).
    soft: a spike subtracts the threshold; else it resets to 0.
    """

    def __init__(self, way: str, decay: float = 0.75, *, soft: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.decay, self.soft = way, decay, soft
        self.stem, self.conv = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.skip = nn.Conv2d(4, 4, 1) if way == "weights" else nn.Identity()
        self.head = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        v, out = [torch.zeros(())] * 3, []

        def lif(index: int, current: Tensor) -> Tensor:
            moved = self.decay * v[index] + current
            spiked = (moved > 0.3).float()
            v[index] = moved - 0.3 * spiked if self.soft else moved * (1 - spiked)
            return spiked

        for step in x:
            z = lif(0, self.stem(step))
            y = lif(1, self.conv(z)) + z if self.way == "behind" else lif(1, self.conv(z) + self.skip(z))
            out.append(lif(2, self.head(y.flatten(1))))
        return torch.stack(out)


@pytest.fixture(scope="module")
def bare() -> stl.SpikingGraph:
    return stl.capture(Residual("bare"), SPIKES, verify=False)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), stl.LIF((6,), threshold=0.3), nn.Linear(6, 3), stl.LIF((3,), threshold=0.2))


@pytest.fixture(scope="module")
def net() -> stl.SpikingGraph:
    return stl.capture(mlp(), (torch.rand(8, 6, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float())


def test_rounding_s_remedy_says_what_a_residual_network_lacks(bare: stl.SpikingGraph) -> None:
    """It promised that `quantised` takes the differences away, which refused such a network."""
    (remedy,) = {found.remedy for found in bare.check("c").findings if found.slug == "quantisation"}
    assert "in Loihi's integers, needs a changed network: at 'lif2' spikes reach it on a path without its own" in remedy
    assert "weights: put a convolution of kernel 1" in remedy
    with pytest.raises(
        stl.UnsupportedError, match=r"node 'lif2': .* put a convolution of kernel 1 on that path, or add"
    ):
        bare.fold(input_grid=0).quantised()


def test_everything_that_keeps_a_network_from_training_in_integers_is_named_at_once() -> None:
    """The reset was named first, and the skip only once that was mended."""
    net = stl.capture(Residual("bare", soft=True), SPIKES, verify=False)
    reset, skip = "its reset is 'subtract'", "spikes reach it on a path without its own weights"
    with pytest.raises(stl.UnsupportedError) as refused:
        net.quantised()
    assert str(refused.value) == (
        f"node 'lif1': {reset}; Loihi resets to 0; train with hard reset, or export to c or onnx (also at 'lif2', "
        f"'lif3'); node 'lif2': {skip}; put a convolution of kernel 1 on that path, or add the spikes behind the "
        "neurons"
    )
    (remedy,) = {found.remedy for found in net.check("c").findings if found.slug == "quantisation"}
    assert (
        f"at 'lif1', 'lif2', 'lif3' {reset}: Loihi resets to 0; train with hard reset; at 'lif2' {skip}: put" in remedy
    )
    assert remedy.count(reset) == remedy.count(skip) == 1
    stl.capture(Residual("weights"), SPIKES, verify=False).quantised()


@pytest.mark.parametrize("way", ["weights", "behind"])
def test_integers_that_were_trained_are_compared_with_themselves_first(way: str, tmp_path: Path) -> None:
    """Both remedies lead on; the float graph does not round what leaks, so that some of its spikes differ."""
    net = stl.capture(Residual(way, decay=0.9), SPIKES, verify=False)
    (remedy,) = {found.remedy for found in net.check("c").findings if found.slug == "quantisation"}
    assert (
        "for quantisation-aware training, after which the module spikes as its integers do: net.quantised()" in remedy
    )
    module = net.fold(input_grid=0).quantised().eval()
    exported = module.graph().export(tmp_path / "net", to="c")
    said = repr(exported).splitlines()[1]
    assert ": 0 of 6,984 spikes differ from the integers that were trained; " in said
    assert said.endswith(" of 6,984 spikes differ from the same weights in float32")
    with torch.no_grad():
        np.testing.assert_allclose(module.graph().simulate(SPIKES, backend="c").y, module(SPIKES).numpy(), atol=1e-6)
    assert "integers" not in net.export(tmp_path / "plain", to="c")


def test_netx_names_one_remedy_for_a_residual_network(bare: stl.SpikingGraph) -> None:
    """It asked for identity weights on the skip, for one reader and for a chain at once."""
    errors = [found for found in bare.check("netx").findings if found.severity == "error"]
    assert {found.slug for found in errors} == {"skip-connection"}
    (remedy,) = {found.remedy for found in errors}
    assert remedy.endswith("train one without skips, or export to c or onnx")
    report = bare.check("loihi1")
    assert {node.targets["loihi1"] for node in report.nodes if node.node == "stem"} == {"approximate"}


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("snntorch", "found 'snntorch', a target of check alone; export with to='nir' and reader='snntorch'"),
        ("loihi2", "found 'loihi2', a target of check alone; export with to='netx'"),
        ("C", "found 'C' (did you mean 'c'?)"),
    ],
)
def test_a_target_of_check_alone_names_what_to_export(net: stl.SpikingGraph, to: str, said: str) -> None:
    with pytest.raises(stl.InputError) as caught:
        net.export("made", to=to)
    assert said in str(caught.value)
    if to != "C":
        (told,) = [found for found in net.check(to).findings if found.slug == "check-only"]
        assert told.remedy in str(caught.value)
        with command_line():
            assert "'" not in next(found.remedy for found in net.check(to).findings if found.slug == "check-only")


def test_loihi_names_files_and_chips(net: stl.SpikingGraph) -> None:
    with pytest.raises(stl.InputError, match="for loihi: 'netx', the files; 'loihi1' or 'loihi2', whether a chip has"):
        net.check("loihi")


@pytest.mark.parametrize("name", ["net.onnx", "net.c"])
def test_a_folder_s_name_is_not_a_file_s(net: stl.SpikingGraph, name: str, tmp_path: Path) -> None:
    with pytest.raises(stl.InputError, match=r"expected the name of a folder, as c is written; .* leave '\.\w+' out"):
        net.export(tmp_path / name, to="c")
    assert not (tmp_path / name).exists()
    net.export(tmp_path / "net", to="c")


def test_one_hot_labels_are_named_at_evaluation(net: stl.SpikingGraph) -> None:
    x, y = net.sample, torch.eye(3)[torch.arange(6) % 3]
    with pytest.raises(stl.InputError, match=r"these rows are one-hot: give labels\.argmax\(axis=1\)"):
        net.evaluate([(x, y)])
    net.evaluate([(x, y.argmax(axis=1))])


@pytest.mark.push(2)
@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (lambda y: y[:, None], "labels[:, 0]"),
        (lambda y: y[:, None] % 2 + 1, "labels[:, 0]"),  # no zeros: they are not one-hot rows
        (lambda y: y.float(), "labels as int64"),
        (lambda y: y[:, None].double(), "labels[:, 0] as int64"),
    ],
)
def test_labels_of_another_form_are_given_as_the_sentence_says(
    given: Callable[[torch.Tensor], torch.Tensor], remedy: str, net: stl.SpikingGraph
) -> None:
    x, y = net.sample, torch.arange(6) % 3
    labels = given(y)
    for refused in (lambda: net.evaluate([(x, labels)]), lambda: net.energy(x, labels)):
        with pytest.raises(stl.InputError, match=re.escape(f"; give {remedy}") + "$"):
            refused()
    labels = labels[:, 0] if "[:, 0]" in remedy else labels
    labels = labels.long() if "int64" in remedy else labels
    assert net.evaluate([(x, labels)]).samples == len(y)
    assert net.energy(x, labels).totals["spikes"]


@pytest.mark.parametrize("labels", [torch.full((6,), 0.5), torch.rand(6, 3), torch.tensor(1.0)])
def test_labels_that_are_no_classes_say_what_is_expected(labels: torch.Tensor, net: stl.SpikingGraph) -> None:
    with pytest.raises(stl.InputError, match=r"; give the number of the class of each sample, from 0$"):
        net.evaluate([(net.sample, labels)])


def test_an_npz_without_x_says_how_to_write_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", np.zeros((8, 6, 4)))
    (tmp_path / "model.py").write_text("from tests.pipeline.test_first_messages import mlp as net\n")
    with pytest.raises(stl.InputError, match=r"found arr_0; write it with numpy\.savez\('x\.npz', x=x\)"):
        verbs.capture(f"{tmp_path / 'model.py'}:net", input_file=tmp_path / "x.npz", output=tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x=np.ones((8, 6, 4), np.float32))
    verbs.capture(f"{tmp_path / 'model.py'}:net", input_file=tmp_path / "x.npz", output=tmp_path / "net.nir")


def test_an_image_s_levels_are_asked_about_at_capture() -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 4)).astype(np.uint8)
    with pytest.warns(UserWarning, match=r"x holds integers from 0 to 25\d, as images do: .* x / 255, give that"):
        stl.capture(mlp(), torch.from_numpy(images))
    stl.capture(mlp(), torch.from_numpy(images / 255))  # without a warning


def test_input_without_events_gets_no_number() -> None:
    """Biases fire: not silent, but an input of zeros is nothing to quote a ratio for."""
    model, x = mlp(), torch.zeros(8, 6, 4)
    with torch.no_grad():
        model[0].bias.fill_(0.2)  # type: ignore[union-attr,operator]
        model[2].bias.fill_(0.15)  # type: ignore[union-attr,operator]
    net = stl.capture(model, (torch.rand(8, 6, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float())
    verdict = repr(net.energy(x))
    assert verdict.startswith(
        "Every value of the input is 0: no event reaches the SNN, so there is no number to quote."
    )
    assert "times" not in verdict
    assert "times; streaming, " in net.energy().report.spread


def test_a_network_without_neurons_has_no_spikes_to_compare(tmp_path: Path) -> None:
    """Its export printed "0 of 0 spikes differ from the graph"."""
    plain = stl.capture(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(8, 6, 4)).export(tmp_path / "net.onnx")
    assert "no spikes to compare, so only outputs were compared with the graph" in repr(plain)
    assert "spikes differ" not in repr(plain)


@pytest.mark.push(1)
@pytest.mark.parametrize(
    ("made", "x", "to"),
    [
        (mlp, SPIKES.reshape(6, 4, 36)[..., :4], "c"),
        (mlp, SPIKES.reshape(6, 4, 36)[..., :4], "verilog"),
        (mlp, SPIKES.reshape(6, 4, 36)[..., :4], "netx"),
        (lambda: Residual("weights"), SPIKES, "c"),
    ],
)
def test_check_refuses_integers_that_overflow_as_export_does(
    made: Callable[[], nn.Module], x: Tensor, to: str, tmp_path: Path
) -> None:
    """It passed a network whose sums of large integers in ``sample`` export then refused."""
    net, refused = stl.capture(made(), x, verify=False), list[int]()
    for bits in range(8, 26, 2):
        net.sample = x.numpy() * np.float32(2**bits)
        errors = [found for found in net.check(to).findings if found.severity == "error"]
        said = [f"node '{each.node}': {each.reason}; {each.remedy}" if each.node else each.reason for each in errors]
        refusal = ""
        try:
            net.export(tmp_path / f"{bits}{'.net' if to == 'netx' else ''}", to=to)
        except (stl.UnsupportedError, stl.InputError) as error:
            refusal = str(error)
        assert said == [refusal] * bool(refusal)
        if refusal:
            refused.append(bits)
            assert "use fewer input levels (as x / " in refusal or "use smaller input values" in refusal
            net.sample = np.round(net.sample / 2.0 ** (bits - 7))
            assert not [found for found in net.check(to).findings if found.severity == "error"]
    assert refused == list(range(refused[0], 26, 2))
    assert refused[0] > 8


class Frames(nn.Module):
    """Layers of frames in front of neurons."""

    def __init__(self, layers: nn.Module, neurons: nn.Module) -> None:
        super().__init__()
        self.layers, self.neurons = layers, neurons

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.neurons(self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return spikes


class Pixels(nn.Sequential):
    """Pixels of 0 to 255, divided in forward."""

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = super().forward(x / 255)
        return made


def test_training_in_integers_names_the_fold_that_lets_it_train() -> None:
    """It asked for other pools, where there were none, and for pools elsewhere, which a fold merges."""
    pixels = stl.capture(Pixels(*mlp()), SPIKES.reshape(6, 4, 36)[..., :4] * 5, verify=False)
    said = next(found.remedy for found in pixels.check("c").findings if found.slug == "quantisation")
    assert "net.fold()" in said
    assert "pool" not in said
    pixels.fold().quantised()
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2))
    pooled = stl.capture(Frames(layers, stl.LIF((2, 2, 2), threshold=0.2)), SPIKES, verify=False)
    with pytest.raises(stl.UnsupportedError, match=r"or merge pools into weights: net.fold\(merge_pools=True\)"):
        pooled.quantised()
    pooled.fold(merge_pools=True).quantised()


def test_check_refuses_weights_that_round_to_0_beside_a_bias_as_export_does(tmp_path: Path) -> None:
    """It passed them, and export's remedy, a coarser grid or smaller input, changed nothing."""
    model = mlp()
    with torch.no_grad():
        model[0].bias.fill_(8000)
    model[1] = stl.LIF((6,), threshold=8000.5)
    net = stl.capture(model, torch.ones(8, 6, 4), verify=False)
    for to, name in (("c", "c"), ("verilog", "v"), ("netx", "n.net")):
        (error,) = [found for found in net.check(to).findings if found.severity == "error"]
        assert error.reason == "its bias is so large that every weight rounds to 0 beside it"
        with pytest.raises(stl.UnsupportedError, match=f"{error.reason}; train with a smaller bias, or export to onnx"):
            net.export(tmp_path / name, to=to)
    net.export(tmp_path / "net.onnx")
    net.export(tmp_path / "c", to="c", numbers="float32")


def test_remedies_send_to_c_only_what_integers_hold(tmp_path: Path) -> None:
    """A circular convolution was sent to C and Verilog, which refuse it, too."""
    torch.manual_seed(0)
    circular = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")
    net = stl.capture(Frames(circular, stl.LIF((2, 6, 6), threshold=0.2)), SPIKES, verify=False)
    remedies = [found.remedy for found in net.check("netx").findings if found.slug == "skip-connection"]
    assert remedies
    floats = "train one without skips, or export to onnx, or to c with numbers='float32'"
    assert all(remedy.endswith(floats) for remedy in remedies)
    with pytest.raises(stl.UnsupportedError, match="put a neuron between them, or export to onnx"):
        net.export(tmp_path / "c", to="c")
    net.export(tmp_path / "net.onnx")


def test_decays_outside_0_to_1_are_told_from_decays_that_differ(tmp_path: Path) -> None:
    """One decay of -0.5 was asked to be one for each layer."""
    for decay, sentence in (
        (torch.tensor(-0.5), "its decay is outside 0 to 1; use decays from 0 to 1, or export to onnx"),
        (torch.linspace(0.5, 0.75, 36), "its decay differs between neurons; use one decay per layer, or export to c"),
    ):
        net = stl.capture(Leaks(decay), SPIKES.flatten(2), verify=False)
        with pytest.raises(stl.UnsupportedError, match=sentence):
            net.export(tmp_path / "n.net")
        net.export(tmp_path / "net.onnx", overwrite=True)


class Leaks(nn.Module):
    """Neurons without weights that sum [T, B, 36], reset to 0."""

    def __init__(self, decay: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.decay, self.layer = decay, nn.Linear(36, 36)

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 36), []
        for current in self.layer(x):
            v = self.decay * v + current
            out.append((v > 0.1).float())
            v = v * (1 - out[-1])
        return torch.stack(out)


def test_a_network_in_integers_is_not_sent_to_training_again() -> None:
    graph = stl.capture(Leaks(torch.tensor(0.5)), SPIKES.flatten(2), verify=False).quantised().graph()
    said = next(found.remedy for found in graph.check("c").findings if found.slug == "quantisation")
    assert said == "export counts the spikes that differ; its weights are integers, as training in integers leaves them"


def test_a_sparse_tensor_is_taken() -> None:
    x = SPIKES.flatten(2)
    net = stl.capture(Leaks(torch.tensor(0.5)), x.to_sparse(), verify=False)
    np.testing.assert_array_equal(net.simulate(x.to_sparse()).y, net.simulate(x).y)


def test_decays_of_0_among_others_are_captured() -> None:
    """No one form of neuron holds them: they are a Cell."""
    decays = torch.linspace(0, 0.7, 36)
    net = stl.capture(Leaks(decays), SPIKES.flatten(2))
    np.testing.assert_array_equal(net.simulate(SPIKES.flatten(2)).y, Leaks(decays)(SPIKES.flatten(2)).numpy())
    assert not net.check("c").ok
    stl.capture(Leaks(decays.clamp(1e-3)), SPIKES.flatten(2)).check("c", input_grid=0)


def test_decays_of_1_among_others_are_named_where_nir_is_written() -> None:
    decays = torch.linspace(0.5, 1, 36)
    net = stl.capture(Leaks(decays), SPIKES.flatten(2))
    np.testing.assert_array_equal(net.simulate(SPIKES.flatten(2)).y, Leaks(decays)(SPIKES.flatten(2)).numpy())
    with pytest.raises(stl.UnsupportedError, match=r"NIR's leaky neurons need one below 1: decay.clamp\(max=0.999\)"):
        _ = net.graph
    _ = stl.capture(Leaks(decays.clamp(max=0.999)), SPIKES.flatten(2)).graph
