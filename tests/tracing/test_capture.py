"""Any module becomes one graph of one step, proved: its layers, neurons and spikes are those of the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy._util.npz import write_npz
from stl_deploy.errors import CaptureError, InputError
from stl_deploy.graph.program import Neuron, Program
from stl_deploy.verbs.energy_of import energy
from tests.tracing.stand_ins import Leaky, LIFBox, MemoryNeuron


def neuron(program: Program, name: str) -> Neuron:
    found = program.by_name[name]
    assert isinstance(found, Neuron)
    return found


def require_proved(net: Any, *, exact: bool = True) -> None:
    proof = net.proof
    assert proof.replay_differing == 0
    assert proof.replay_compared > 0
    assert all(layer.compared for layer in proof.layers)
    if exact:
        assert proof.end_to_end["differing"] == 0
        assert all(layer.differing == 0 for layer in proof.layers)


class Residual(nn.Module):
    """Two blocks of our own neurons, with a skip, norms, pooling and a mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.lif1 = stl.LIF((4, 8, 8), threshold=0.3, jitter=0.05, granularity="neuron")
        self.lif2 = stl.LIF((4, 8, 8), threshold=0.4, jitter=0.05, granularity="channel", decay=0.75)
        self.fc, self.lif3 = nn.Linear(64, 5), stl.LIF((5,), threshold=0.2)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        h = self.lif1(self.norm1(self.conv1(x.flatten(0, 1))).unflatten(0, (steps, batch)))
        g = self.norm2(self.conv2(h.flatten(0, 1))).unflatten(0, (steps, batch))
        h = self.lif2(g + h)
        h = functional.max_pool2d(h.flatten(0, 1), 2).flatten(1).unflatten(0, (steps, batch))
        return self.lif3(self.fc(functional.dropout(h, training=self.training))).mean(0)


def test_a_residual_net_of_our_own() -> None:
    torch.manual_seed(0)
    model = Residual()
    for norm in (model.norm1, model.norm2):
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    x = torch.rand(5, 2, 2, 8, 8)
    net = stl.capture(model, x)
    require_proved(net)
    assert [n.name for n in net.program.spiking] == ["lif1", "lif2", "pool1", "lif3"]
    assert {s.node for s in net.program.by_name["lif2"].operands} == {"conv2", "lif1"}
    expected = np.float32(model.lif1.threshold.detach())
    assert (neuron(net.program, "lif1").threshold == expected).all()
    assert (neuron(net.program, "lif2").threshold == np.float32(model.lif2.threshold.detach())).all()
    assert float(neuron(net.program, "lif2").decay) == 0.75
    assert str(net.readout) == "mean over time"
    np.testing.assert_allclose(net.simulate(x.numpy()).readout, model.eval()(x).detach().numpy(), rtol=1e-6)


class Loop(nn.Module):
    """The state is passed by hand in a loop over time."""

    def __init__(self, *neurons: Leaky) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)
        self.lif1, self.lif2 = neurons or (Leaky(), Leaky())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 3)
        spikes, potentials = [], []
        for t in range(x.shape[0]):
            out, mem1 = self.lif1(self.fc1(x[t]), mem1)
            out, mem2 = self.lif2(self.fc2(out), mem2)
            spikes.append(out)
            potentials.append(mem2)
        return torch.stack(spikes), torch.stack(potentials)


@pytest.mark.parametrize(("reset", "found"), [("subtract", "subtract_delayed"), ("zero", "value")])
def test_a_loop_with_state_by_hand(reset: str, found: str) -> None:
    torch.manual_seed(1)
    model = Loop(Leaky(0.9, 0.5, reset), Leaky(0.5, torch.linspace(0.2, 0.4, 3), reset))
    net = stl.capture(model, torch.rand(8, 3, 6) * 2)
    require_proved(net)
    assert [n.reset for n in net.program.spiking] == [found] * 2
    assert float(neuron(net.program, "lif1").decay) == np.float32(0.9)
    assert neuron(net.program, "lif2").threshold.tolist() == np.linspace(0.2, 0.4, 3, dtype=np.float32).tolist()


def stack(step_mode: str, **options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 12), MemoryNeuron(step_mode=step_mode, **options), nn.Linear(12, 4)).append(
        MemoryNeuron(step_mode=step_mode, **options)
    )


@pytest.mark.push(6)
@pytest.mark.parametrize(
    ("options", "reset", "exact"),
    [
        ({"tau": None}, "value", True),
        ({"tau": None, "v_reset": None}, "subtract", True),
        ({"decay_input": False}, "value", True),
        ({"v_reset": -0.25}, "value", False),
        ({"v_reset": None}, "subtract", False),
        ({"learned": True}, "value", False),
    ],
)
@pytest.mark.parametrize("time", ["first", "second", "step"])
def test_state_in_the_module(options: dict[str, Any], reset: str, exact: bool, time: Any) -> None:
    torch.manual_seed(2)
    model = stack("s" if time == "step" else "m", v_threshold=0.1, **options)
    x = torch.rand(7, 3, 6) * 4
    module = Swapped(model) if time == "second" else model
    net = stl.capture(module, x.transpose(0, 1) if time == "second" else x, time=time)
    require_proved(net, exact=exact)
    assert [n.reset for n in net.program.spiking] == [reset] * 2
    assert all(n.compare == "ge" for n in net.program.spiking)
    assert [module.v for module in model if isinstance(module, MemoryNeuron)] == [
        options.get("v_reset", 0.0) or 0.0
    ] * 2


def test_a_graph_takes_input_as_its_module_does(tmp_path: Path) -> None:
    """Of ``[B, T, ...]``: the same counts and outputs from x given again as from the batch of the capture."""
    torch.manual_seed(2)
    x = (torch.rand(5, 7, 6) < 0.7).float()  # 5 samples of 7 steps
    net = stl.capture(Swapped(stack("m", v_threshold=0.1, tau=None)), x, time="second").fold(input_grid=0)
    steps_first = np.asarray(x.transpose(0, 1))
    assert str(net.proof).endswith("\nx read as [B, T, ...]: 7 steps of 5 samples")
    assert net.simulate(x).y.shape[:2] == (7, 5)
    assert net.energy(x).totals == net.energy().totals
    manifest = net.export(tmp_path / "net.onnx", x=x)
    assert manifest["verified"]["input"] == "5 samples of x"
    net.verify(tmp_path / "net.onnx", x).require()
    with pytest.warns(UserWarning, match=r"5 steps of 7 samples; it was captured on 7 steps: .*swapaxes"):
        net.simulate(steps_first)
    net.export(tmp_path / "net.nir")
    read = stl.read(tmp_path / "net.nir")  # a file's input has its steps first
    np.testing.assert_array_equal(read.simulate(steps_first).y, net.simulate(x).y)
    write_npz(tmp_path / "x.npz", {"x": steps_first})
    energy(tmp_path / "net.nir", tmp_path / "x.npz")
    write_npz(tmp_path / "x.npz", {"x": x.numpy()})
    with pytest.warns(UserWarning, match=r"x is read as \[T, B, ...\], 5 steps of 7 samples; .* on 7 steps: if x is"):
        energy(tmp_path / "net.nir", tmp_path / "x.npz")
    write_npz(tmp_path / "x.npz", {"x": x.numpy(), "y": np.zeros(5, int)})
    with pytest.raises(InputError, match=r"'y': expected integers \[7\], .* if it is \[B, T, ...\], swap"):
        energy(tmp_path / "net.nir", tmp_path / "x.npz")


class Swapped(nn.Module):
    """Takes ``[B, T, ...]``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x.transpose(0, 1))
        return y.transpose(0, 1)


class Inside(nn.Module):
    """Takes one ``[B, ...]`` and loops over time itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = stack("s", tau=None, v_threshold=0.3)

    def forward(self, x: Tensor) -> Tensor:
        total: Any = 0
        for _ in range(6):
            total = total + self.net(x)
        return total / 6  # type: ignore[no-any-return]


def test_a_loop_inside() -> None:
    torch.manual_seed(3)
    x = torch.rand(3, 6)
    model = Inside()
    net = stl.capture(model, x, time="inside")
    require_proved(net)
    assert net.sample.shape == (6, 3, 6)
    np.testing.assert_allclose(net.simulate(net.sample).readout, model.net[1].reset() or run_fresh(model, x), rtol=1e-6)


def run_fresh(model: Inside, x: Tensor) -> Any:
    for module in model.net:
        if isinstance(module, MemoryNeuron):
            module.reset()
    return model(x).detach().numpy()


@pytest.mark.parametrize(("v_leak", "v_reset"), [(0.0, 0.0), (0.125, -0.25)])
def test_norse_s_form_starts_from_none(v_leak: float, v_reset: float) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.cell = nn.Linear(6, 8), LIFBox(v_leak, v_reset, v_th=0.3)

        def forward(self, x: Tensor) -> Tensor:
            v, out = None, []
            for step in x:
                z, v = self.cell(self.fc(step), v)
                out.append(z)
            return torch.stack(out)

    torch.manual_seed(4)
    net = stl.capture(Net(), torch.rand(9, 3, 6) * 4)
    require_proved(net, exact=False)
    cell = neuron(net.program, "cell")
    assert float(cell.decay) == np.float32(0.8)
    told = [float(np.max(a)) for a in (cell.v_start, cell.v_reset) if a is not None]
    assert told == [value for value in (v_leak, v_reset) if value]


def test_a_recurrent_layer_and_a_synapse() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.back, self.lif = nn.Linear(6, 8), nn.Linear(8, 8), Leaky(0.8, 0.4, alpha=0.5)

        def forward(self, x: Tensor) -> Tensor:
            mem = syn = out = torch.zeros(x.shape[1], 8)
            found = []
            for step in x:
                out, mem, syn = self.lif(self.fc(step) + self.back(out), mem, syn)
                found.append(out)
            return torch.stack(found)

    torch.manual_seed(5)
    net = stl.capture(Net(), torch.rand(8, 3, 6) * 2)
    require_proved(net)
    (lif,) = net.program.spiking
    assert lif.synapse is not None
    assert float(lif.synapse.decay) == 0.5
    assert [(s.node, s.delay) for s in net.program.by_name["back"].operands] == [("lif", 1)]


def test_the_model_is_left_as_it_was_found() -> None:
    torch.manual_seed(6)
    model = Residual().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    stl.capture(model, torch.rand(5, 2, 2, 8, 8) * 3)
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.manual_seed(6)
    Residual()
    torch.rand(5, 2, 2, 8, 8)
    assert not torch.equal(random, torch.get_rng_state())


def test_a_silent_layer_is_named() -> None:
    model = Loop(Leaky(0.9, 50.0), Leaky())
    with pytest.warns(UserWarning, match="no spike in lif1"):
        stl.capture(model, torch.rand(6, 3, 6))


class Refused(nn.Module):
    """One line of a loop that no graph holds."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.fc = nn.Linear(6, 6)
        self.weights = nn.ParameterList(torch.rand(6) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        mem, out = torch.zeros(x.shape[1], 6), []
        for t in range(x.shape[0]):
            current = self.fc(x[t])
            if self.kind == "branch" and current.sum() > 0:
                current = current * 2
            if self.kind == "by step":
                current = current * self.weights[t]
            if self.kind == "random":
                current = current + torch.rand(6)
            if self.kind == "every second" and t % 2:
                current = current * 0.5
            if self.kind == "drawn" and t == 0:
                self.drawn = torch.from_numpy(np.random.random(6).astype(np.float32))  # noqa: NPY002
            if self.kind == "drawn":
                current = current + self.drawn
            if self.kind == "numpy":
                current = torch.from_numpy(current.detach().numpy() * 2)
            if self.kind == "mixes samples":
                current = current - current.mean(0)
            mem = mem * 0.5 + current
            if self.kind == "unknown neuron":
                mem = mem * mem
            if self.kind == "clipped":
                mem = mem.clamp(-0.25, 2.0)
            spikes = (mem > 0.5).float()
            if self.kind == "refractory":
                spikes = ((mem > 0.5) & (current > 0)).float()
            mem = mem - spikes * (0.25 if self.kind == "odd reset" else 0.5)
            out.append(torch.sigmoid(mem) if self.kind == "sigmoid" else spikes)
        return torch.stack(out)


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("branch", "reads a value that depends on the input"),
        ("by step", "does not do the same at every step"),
        ("random", "draws random numbers"),
        ("every second", "does not do the same at every step"),
        ("mixes samples", "mixes samples"),
        ("sigmoid", "a Cell|has no form"),
    ],
)
def test_refusals_name_the_line(kind: str, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason) as caught:
        stl.capture(Refused(kind), torch.rand(6, 3, 6))
    assert caught.value.line is not None
    assert caught.value.line.startswith("test_capture.py:")


def test_what_numpy_computes_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"'numpy' hands values .* to code outside of torch"):
        stl.capture(Refused("numpy"), torch.rand(6, 3, 6))


class Gated(nn.Module):
    """Spikes joined by a product, and by a concatenation; a vote over neurons."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(6, 20), nn.Linear(6, 20)
        self.lif_a, self.lif_b = (MemoryNeuron(tau=None, v_threshold=0.3, step_mode="m") for _ in range(2))
        self.fc = nn.Linear(40 if kind == "cat" else 20, 20)
        self.out = MemoryNeuron(tau=None, v_threshold=0.3, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.lif_a(self.a(x)), self.lif_b(self.b(x))
        joined = {"and": a * b, "and not": (1.0 - a) * b, "add": a + b, "cat": torch.cat([a, b], -1)}[self.kind]
        spikes = self.out(self.fc(joined))
        votes = functional.avg_pool1d(spikes.flatten(0, 1).unsqueeze(1), 5, 5).squeeze(1)
        return votes.unflatten(0, x.shape[:2]).mean(0)


@pytest.mark.parametrize("kind", ["and", "and not", "add", "cat"])
def test_spikes_that_are_joined(kind: str) -> None:
    torch.manual_seed(7)
    model, x = Gated(kind), torch.rand(8, 3, 6) * 2
    net = stl.capture(model, x)
    require_proved(net, exact=kind != "cat")
    assert net.program.outputs[0].shape == (4,)
    expected = model.eval()(x).detach().numpy()
    if net.proof.end_to_end["differing"] == 0:
        np.testing.assert_allclose(net.simulate(x.numpy()).readout, expected, atol=1e-6)


def test_random_numbers_from_numpy_are_found() -> None:
    with pytest.raises(CaptureError, match="forward draws random numbers from numpy or Python"):
        stl.capture(Refused("drawn"), torch.rand(6, 3, 6))


class OneDimension(nn.Module):
    """Conv1d, and AvgPool1d, for which NIR has no node; puts out a list, one for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4)
        self.lif, self.pool, self.fc = MemoryNeuron(tau=None, v_threshold=0.3), nn.AvgPool1d(2), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.fc(self.pool(self.lif(self.norm(self.conv(step)))).flatten(1)) for step in x]


def test_one_dimension() -> None:
    torch.manual_seed(8)
    net = stl.capture(OneDimension(), torch.rand(6, 3, 2, 10) * 2)
    require_proved(net)
    assert net.program.outputs[0].shape == (3,)


def test_a_delay_before_the_output() -> None:
    class Late(Loop):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            spikes, potentials = super().forward(x)
            return torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]]), potentials

    torch.manual_seed(1)
    model, x = Late(Leaky(0.9, 0.5), Leaky(0.5, torch.linspace(0.2, 0.4, 3))), torch.rand(8, 3, 6) * 2
    net = stl.capture(model, x)
    require_proved(net)
    assert (net.simulate(x.numpy()).y == model(x)[0].detach().numpy()).all()


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (
            torch.rand(6, 4, 5),
            r"test_capture\.py:\d+: the model fails on an input of shape \[6, 4, 5\]: .* time='first'",
        ),
        (torch.rand(6, 0, 6), r"x is \[6, 0, 6\], in which there is nothing"),
        (torch.rand(6, 3, 6) * 1j, "x is complex; expected real numbers"),
        (torch.rand(2, 3, 6), "^x: expected at least 3 time steps, to tell what repeats; found 2 with time='first'"),
        (torch.full((6, 3, 6), float("nan")), "NaN or infinity"),
    ],
)
def test_input_that_does_not_do(x: Tensor, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        stl.capture(Loop(), x)


@pytest.mark.parametrize(("time", "shape"), [("first", (1, 2, 1, 8, 8)), ("second", (2, 1, 1, 8, 8))])
def test_one_step_of_a_convolution_is_too_few(time: Any, shape: tuple[int, ...]) -> None:
    class Convolution(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = super().forward(x.flatten(0, 1))
            return (found > 0.1).float().unflatten(0, x.shape[:2])

    with pytest.raises(CaptureError, match=rf"x: expected at least 3 time steps, .* found 1 .* time='{time}'"):
        stl.capture(Convolution(nn.Conv2d(1, 2, 3)), torch.rand(shape), time=time)


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (torch.int64, r"fails on an input .*; parameter '0\.weight' holds integers: make them floats by \.float\(\)$"),
        (torch.complex64, r"parameter '0\.weight' is complex; a graph holds real weights$"),
    ],
)
def test_weights_that_are_no_real_numbers(dtype: torch.dtype, reason: str) -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    model[0].weight = nn.Parameter(model[0].weight.detach().to(dtype), requires_grad=False)
    with pytest.raises(CaptureError, match=reason):
        stl.capture(model, torch.rand(6, 3, 6))


def test_weights_that_are_not_finite_are_named() -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    with torch.no_grad():
        model[0].bias[1] = float("nan")
    with pytest.raises(CaptureError, match=r"parameter '0\.bias' holds NaN or infinity"):
        stl.capture(model, torch.rand(6, 3, 6))


class TimeLast(nn.Module):
    """Takes [B, 6, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.loop(x.permute(2, 0, 1))
        return found


def test_time_on_another_axis_is_told() -> None:
    with pytest.raises(
        CaptureError,
        match=r"x, \[4, 6, 7\], was read as 4 steps of 6 samples, but forward fails with 3 samples on axis 1",
    ):
        stl.capture(TimeLast(), torch.rand(4, 6, 7))


def test_text_is_no_input() -> None:
    with pytest.raises(InputError, match="expected an array of numbers; found an array of"):
        stl.capture(Loop(), np.array(["a", "b"]))


class Traces(nn.Module):
    """Two decays of one input, the same operations until they part: their difference is what charges."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        slow = fast = mem = torch.zeros(x.shape[1], 5)
        found = []
        for step in x:
            current = self.fc(step)
            slow, fast = 0.9 * slow + current, 0.8 * fast + current
            mem = 0.5 * mem + (slow - fast)
            spikes = (mem > 0.1).float()
            mem = mem * (1 - spikes)
            found.append(spikes)
        return torch.stack(found)


def test_two_decays_of_one_input_stay_two() -> None:
    torch.manual_seed(2)
    net = stl.capture(Traces(), torch.rand(9, 3, 6))
    require_proved(net)
    leaks = {float(node.decay) for node in net.program.nodes if isinstance(node, Neuron) and node.decay is not None}
    assert leaks == {np.float32(0.9), np.float32(0.8), 0.5}


def test_not_a_module() -> None:
    with pytest.raises(CaptureError, match=r"is not a torch\.nn\.Module"):
        stl.capture(lambda x: x, torch.rand(5, 2, 6))  # type: ignore[arg-type]


@pytest.mark.parametrize("flat", [True, False])
def test_one_sample_is_captured_as_many_are(flat: bool) -> None:
    """Layers over all steps at once: one sample merges with time, and is no factor of the channels."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lif, self.fc = nn.Conv2d(2, 3, 3), stl.LIF((3, 4, 4), threshold=0.1), nn.Linear(48, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            steps, samples = x.shape[:2]
            y = x.flatten(0, 1) if flat else x.reshape(-1, *x.shape[2:])
            spikes = self.lif(self.conv(y).view(steps, samples, 3, 4, 4))
            return self.fc(spikes.reshape(steps * samples, 48)).unflatten(0, (steps, samples)).mean(0)

    torch.manual_seed(0)
    model, x = Net().eval(), torch.rand(4, 3, 2, 6, 6)
    graphs = [stl.capture(model, x[:, :samples]) for samples in (1, 3)]
    one, many = (graph.simulate(x.numpy()).y for graph in graphs)
    np.testing.assert_array_equal(one, many)
