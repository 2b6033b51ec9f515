"""An ANN becomes a spiking network: candidates, choice, splits, targets, refusals."""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data import load_dataset
from stl_deploy.exporters.program.file import write_program
from stl_deploy.graph import program as ir
from stl_deploy.graph.readout import Readout
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.pipeline.conversion import Candidate, Conversion, Joules
from stl_deploy.pipeline.conversion_data import parts_of
from stl_deploy.pipeline.convert import AUTO, _Search
from stl_deploy.report.page.conversion import render_conversion
from tests.energy.test_report import Page

pytestmark = pytest.mark.filterwarnings("ignore:.*silent|.*saturated|within:UserWarning")


def blobs(count: int = 400) -> tuple[Tensor, Tensor]:
    """Draw three classes of bright quarters, 4 x 4 pixels in sixteenths."""
    drawn = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (count,), generator=drawn)
    x = torch.rand(count, 1, 4, 4, generator=drawn) * 0.6
    for k, (row, column) in enumerate(((0, 0), (0, 2), (2, 0))):
        x[y == k, :, row : row + 2, column : column + 2] += 0.25
    return (x * 16).round() / 16, y


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Train and convert the same networks on every machine: with two threads sums round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3)),
    )
    x, y = blobs()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def ann() -> nn.Module:
    return trained()


def test_the_fewest_levels_within_the_points_are_chosen_and_judged_apart(ann: nn.Module) -> None:
    x, y = blobs()
    net = stl.convert(ann, (x, y), progress=False)
    table = net.conversion
    assert f"accuracy on {table.held_out[0]} held-out samples, the ANN" in str(table)
    assert [each.levels for each in table.candidates] == [level for level in AUTO for _ in range(2)][
        : len(table.candidates)
    ]
    chosen = table.candidates[table.chosen]
    assert chosen.levels == table.candidates[-1].levels
    assert chosen.accuracy >= table.held_out[1] - 0.005
    assert (table.held_out[0], table.samples) == (40, 80)
    assert table.interval[0] <= table.accuracy <= table.interval[1]
    again = net.evaluate(torch.utils.data.TensorDataset(x, y))
    assert again.samples == 400
    assert again.accuracy == pytest.approx(again.module_accuracy, abs=0.05)


def test_many_levels_are_the_ann(ann: nn.Module) -> None:
    x, y = blobs()
    net = stl.convert(ann, (x, y), levels=64, progress=False)
    with torch.no_grad():
        wanted = ann(x).numpy()
    assert np.abs(net.simulate(x).y[0] - wanted).max() < 0.05 * np.abs(wanted).max()
    assert net.conversion.accuracy == pytest.approx(net.conversion.ann_accuracy, abs=0.003)


def test_learning_trains_thresholds_and_keeps_the_best(ann: nn.Module) -> None:
    net = stl.convert(ann, blobs(), levels=2, learn=4, progress=False)
    methods = [each.method for each in net.conversion.candidates]
    assert methods == ["calibrated", "with biases", "thresholds learned", "weights learned"]
    best = max(each.accuracy for each in net.conversion.candidates)
    assert net.conversion.candidates[net.conversion.chosen].accuracy == best


def test_counts_export_as_they_are(ann: nn.Module, tmp_path: Path) -> None:
    x, y = blobs()
    net = stl.convert(ann, (x, y), levels=4, progress=False)
    net.export(tmp_path / "net.onnx")
    net.verify(tmp_path / "net.onnx", x).require()
    on_grid = net.fold(input_grid=4, merge_pools=True)
    assert on_grid.conversion == net.conversion
    manifest = on_grid.export(tmp_path / "c", to="c")
    assert [run["differing"] for run in manifest["verified"]["runs"] if run["against"] == "loihi"] == [0]


def test_one_level_is_a_spike_on_every_target(tmp_path: Path) -> None:
    """Refused as several spikes per step by netx, and not held by NIR."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 8), nn.ReLU()
    net = stl.convert(nn.Sequential(*layers, nn.Linear(8, 3)), torch.rand(64, 1, 8, 8), levels=1, progress=False)
    assert all(neuron.binary for neuron in net.program.spiking)
    on_grid, x = net.fold(input_grid=4), torch.randint(0, 16, (64, 1, 8, 8)) / 16
    assert 0.01 < on_grid.simulate(x, record=True).spikes["1"].mean() < 0.99
    for name in ("net.nir", "net.onnx"):
        on_grid.export(tmp_path / name)
        on_grid.verify(tmp_path / name, x).require()
    for name in ("net.net", "net-c"):
        runs = on_grid.export(tmp_path / name, to="netx" if name == "net.net" else "c")["verified"]["runs"]
        assert all(run["differing"] <= run["compared"] / 50 for run in runs)


def test_rates_export_to_nir(ann: nn.Module, tmp_path: Path) -> None:
    x, y = blobs()
    net = stl.convert(ann, (x, y), form="rates", levels=8, progress=False)
    assert net.simulate(x[:3]).y.shape == (8, 3, 3)
    net.export(tmp_path / "net.nir")
    net.verify(tmp_path / "net.nir", x[:64]).require()


@pytest.mark.parametrize("form", ["counts", "rates"])
def test_files_are_run_at_the_steps_that_they_were_converted_for(ann: nn.Module, tmp_path: Path, form: Any) -> None:
    """A file of rates ran at one step, energy refused the npz that convert reads, and no verb evaluated the file."""
    x, y = blobs()
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y.numpy())
    net = stl.convert(ann, tmp_path / "data.npz", levels=4, form=form, progress=False)
    steps = 1 if form == "counts" else 4
    write_program(net.program, tmp_path / "net.program")
    paths = [tmp_path / "net.program"]
    if form == "rates":
        net.export(tmp_path / "net.nir")
        paths.append(tmp_path / "net.nir")
    for path in paths:
        again = stl.read(path)
        assert np.array_equal(again.simulate(x).y, net.simulate(x).y)
        assert len(again.simulate(np.repeat(x.numpy()[None], steps, 0)).y) == steps
        assert again.evaluate(torch.utils.data.TensorDataset(x, y)).accuracy == net.evaluate([(x, y)]).accuracy
        for wrong in (again.simulate, again.energy):
            with pytest.raises(stl.InputError, match=f"{steps} step.* converted for; found"):
                wrong(np.repeat(x.numpy()[None], 3, 0))
        with pytest.raises(stl.InputError, match=f"steps: expected {steps}, .* found 3"):
            again.evaluate([(x, y)], steps=3)
        assert steps == verbs.energy(path, tmp_path / "data.npz").counts.T
        shown = verbs.evaluate(path, data=str(tmp_path / "data.npz"), backend=["onnx"])["test"]
        with pytest.raises(stl.InputError, match="input_grid"):  # a remedy that the verb has
            verbs.evaluate(path, data=str(tmp_path / "data.npz"), backend=["c"])
        verbs.evaluate(path, data=str(tmp_path / "data.npz"), backend=["c"], input_grid=8)
        assert shown["accuracy"] == net.conversion.accuracy
        assert shown["samples"] == net.conversion.samples
        with pytest.raises(stl.InputError, match="expected labelled samples; found none"):
            verbs.evaluate(path)


def test_images_of_eight_bits_are_what_convert_makes_of_them(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), np.uint8)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
    net = stl.convert(nn.Sequential(*layers), torch.from_numpy(images), levels=4, progress=False)
    write_program(net.program, tmp_path / "net.program")
    again = stl.read(tmp_path / "net.program")
    assert np.array_equal(again.simulate(images).y, net.simulate(torch.from_numpy(images) / 255).y)


def test_numbers_of_eight_bits_that_are_no_pixels_are_warned_of() -> None:
    """An ANN of digits from 0 to 16 was at chance, and nothing told why."""
    ann = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.warns(UserWarning, match="x / 255; the largest is 13"):
        stl.convert(ann, (blobs()[0] * 13 / blobs()[0].max()).to(torch.uint8), levels=1, progress=False)


def test_check_names_every_node_that_nir_does_not_hold(ann: nn.Module) -> None:
    net = stl.convert(ann, blobs()[0], levels=4, progress=False)
    lacking = [finding.node for finding in net.check("nir").findings if finding.severity == "error"]
    assert lacking == [node.name for node in net.program.spiking]
    assert len(lacking) == 2


def test_a_file_that_no_conversion_made_is_judged_on_all_samples(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(2), nn.Linear(16, 8), stl.LIF((8,), threshold=0.3), nn.Linear(8, 3))
    x, y = blobs(12)  # fewer than a split takes
    net = stl.capture(model, x.expand(4, *x.shape).contiguous(), progress=False)
    write_program(net.program, tmp_path / "net.program")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    shown = verbs.evaluate(tmp_path / "net.program", data=str(tmp_path / "data.npz"), steps=4)["test"]
    assert shown["samples"] == 12


@pytest.mark.parametrize("labels", [False, True])
def test_without_labels_nothing_is_judged(ann: nn.Module, labels: bool) -> None:
    net = stl.convert(ann, (blobs()[0], None) if labels else blobs()[0], levels=4, progress=False)
    assert net.conversion.accuracy is None
    assert all(each.accuracy is None for each in net.conversion.candidates)
    assert "no labels" in net.conversion.verdict
    assert "<svg" not in render_conversion(net.conversion)


def test_counts_are_compared_with_the_ann_of_their_bits(ann: nn.Module) -> None:
    counts = stl.convert(ann, blobs(), levels=4, progress=False).conversion
    for each in counts.candidates:
        assert 0 < each.energy.quantised_ann < each.energy.int8_ann
        assert each.energy.quantised_ann <= each.energy.snn  # the same network as events costs the same
    rates = stl.convert(ann, blobs(), levels=4, form="rates", progress=False).conversion
    assert all(each.energy.quantised_ann is None for each in rates.candidates)


@pytest.mark.parametrize(("counts", "saves"), [(0.5, False), (0.8, True), (1.2, False)])
def test_a_saving_of_fewer_bits_is_called_that(counts: float, saves: bool) -> None:
    candidate = Candidate(4, "calibrated", None, None, 1.0, Joules(counts, 1.0, 0.7))
    verdict = Conversion("counts", (candidate,), 0, 0.5, (0, None)).verdict
    assert ("fewer bits" in verdict) == saves


@pytest.mark.push(2)
@pytest.mark.parametrize("form", ["arrays", "dataset", "loader", "npz", "splits"])
def test_every_form_of_data_gives_the_same_network(form: str, ann: nn.Module, tmp_path: Path) -> None:
    x, y = blobs(120)
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y.numpy())
    dataset = torch.utils.data.TensorDataset(x, y)
    splits = load_dataset(DatasetConfig(name="npz", path=str(tmp_path / "data.npz")))  # as training draws them
    parts = {"": splits.train, "_val": splits.validation, "_test": splits.test}
    forms = {
        "splits": stl.data.from_arrays(
            **{f"x{k}": part.pixels for k, part in parts.items()}, **{f"y{k}": part.labels for k, part in parts.items()}
        ),
        "arrays": stl.data.from_arrays(x, y),
        "dataset": dataset,
        "loader": torch.utils.data.DataLoader(dataset, batch_size=50),
        "npz": tmp_path / "data.npz",
    }
    net, own = (stl.convert(ann, data, levels=2, progress=False) for data in (forms[form], (x.numpy(), y.numpy())))
    assert (net.program.digest(), net.conversion) == (own.program.digest(), own.conversion)
    assert (net.conversion.held_out[0], net.conversion.samples) == (12, 24)


@pytest.mark.push(1)
@pytest.mark.parametrize("form", ["array", "npz", "dataset", "loader", "loader of tensors"])
def test_every_form_of_data_may_lack_labels(form: str, ann: nn.Module, tmp_path: Path) -> None:
    x, _ = blobs(40)
    np.savez(tmp_path / "x.npz", x=x.numpy())
    dataset = torch.utils.data.TensorDataset(x)
    data = {
        "array": x,
        "npz": tmp_path / "x.npz",
        "dataset": dataset,
        "loader": torch.utils.data.DataLoader(dataset, batch_size=7),
        "loader of tensors": torch.utils.data.DataLoader(x, batch_size=7),
    }[form]
    net = stl.convert(ann, data, levels=4, progress=False)
    assert net.program.digest() == stl.convert(ann, x, levels=4, progress=False).program.digest()
    assert "no labels" in net.conversion.verdict


def test_points_that_the_held_out_samples_do_not_tell_apart_are_warned_of(ann: nn.Module) -> None:
    x, y = blobs()
    with pytest.warns(
        UserWarning, match=r"within: 0.5 points are less than one of 40 held-out .* give 200 held-out"
    ) as told:
        stl.convert(ann, (x, y), progress=False)
    assert len([each for each in told if "within" in str(each.message)]) == 1
    held_out = {"x_val": x[:200], "y_val": y[:200]}
    with warnings.catch_warnings(record=True) as silent:
        warnings.simplefilter("always")
        stl.convert(ann, (x, y), levels=2, progress=False)  # nothing is chosen by points
        stl.convert(ann, (x, y), within=2.5, progress=False)
        stl.convert(ann, stl.data.from_arrays(x[200:], y[200:], **held_out), progress=False)
    assert not [each for each in silent if "within" in str(each.message)]


@pytest.mark.parametrize(
    "written",
    [
        lambda h: torch.where(h > 0, h, 0),
        lambda h: torch.where(h < 0, torch.zeros_like(h), h),
        lambda h: h.masked_fill(h <= 0, 0.0),
        lambda h: h * (h > 0),
        lambda h: h.gt(0).float() * h,
        lambda h: h * torch.heaviside(h, torch.tensor(0.0)),
        lambda h: (h + h.abs()) / 2,
        lambda h: h * (torch.sign(h) + 1) / 2,
        lambda h: h - h.clamp(max=0),
        lambda h: -torch.minimum(-h, torch.tensor(0.0)),
        lambda h: torch.lerp(torch.zeros_like(h), h, (h > 0).float()),
        lambda h: torch.nan_to_num(torch.relu(h)),
        lambda h: nn.functional.leaky_relu(h, 0.0),
        lambda h: torch.maximum(torch.minimum(h, torch.tensor(0.5)), torch.zeros_like(h)),
        lambda h: (lambda r: torch.where(r < 0.5, r, 0.5))(torch.where(h > 0, h, 0.0)),
    ],
)
def test_choices_that_are_relus_convert_as_them(written: Callable[[Tensor], Tensor]) -> None:
    class Chosen(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return written(h)

    def converted(activation: nn.Module) -> stl.SpikingGraph:
        torch.manual_seed(0)
        layers = nn.Flatten(), nn.Linear(16, 12), activation, nn.Linear(12, 3)
        return stl.convert(nn.Sequential(*layers), blobs()[0], levels=4, progress=False)

    x, capped = blobs()[0], float(written(torch.tensor(9.0))) < 1
    ours, theirs = (converted(each) for each in (Chosen(), nn.Hardtanh(0, 0.5) if capped else nn.ReLU()))
    assert np.array_equal(ours.simulate(x).y, theirs.simulate(x).y)


@pytest.mark.parametrize(
    "written", [lambda h: torch.where(h > 0.5, h, 0), lambda h: torch.where(h > 0, 0.1, h), lambda h: h * h.abs()]
)
def test_choices_that_are_no_relu_are_refused(written: Callable[[Tensor], Tensor]) -> None:
    class Chosen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return written(x.flatten(1))

    layers = nn.Flatten(), nn.Linear(16, 12), Chosen(), nn.Linear(12, 3)
    with pytest.raises(stl.UnsupportedError, match="makes no ReLU"):
        stl.convert(nn.Sequential(*layers), blobs()[0], levels=4, progress=False)


@pytest.mark.parametrize(
    "activation",
    [nn.LeakyReLU(0.1), nn.PReLU(12), nn.Hardtanh(), nn.Softshrink(0.1), nn.Hardsigmoid(), nn.Threshold(0.1, 0.1)],
    ids=lambda module: type(module).__name__,
)
def test_continuous_activations_of_straight_pieces_are_sums_of_relus(activation: nn.Module) -> None:
    torch.manual_seed(0)
    if isinstance(activation, nn.PReLU):
        activation.weight.data.copy_(torch.linspace(-0.5, 2, 12))
        activation.weight.data[:2] = torch.tensor([0.0, 1.0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), activation, nn.Linear(12, 3)).eval()
    x = blobs()[0]
    net = stl.convert(model, x, levels=255, progress=False)
    with torch.no_grad():
        wanted = model(x).numpy()
    assert np.square(net.simulate(x).y[0] - wanted).mean() < 1e-3 * wanted.var()


def test_data_that_are_no_data_are_named(ann: nn.Module, tmp_path: Path) -> None:
    x, y = blobs()
    beyond = torch.where(torch.arange(len(y)) % 4 == 0, 3, y)
    with pytest.raises(stl.InputError, match="labels below 3, one for each output; found 3"):
        stl.convert(ann, (x, beyond), levels=4, progress=False)
    in_test = stl.data.from_arrays(x[:200], y[:200], x_test=x[200:], y_test=beyond[200:])
    with pytest.raises(stl.InputError, match="labels below 3, one for each output; found 3"):
        _Search(ann, ir.Program((), 1.0), parts_of(in_test), None, {}, Readout())  # it was refused after learning
    np.savez(tmp_path / "other.npz", z=np.zeros((20, 6), np.float32))
    with pytest.raises(stl.InputError, match=r"other\.npz: expected an array 'x'"):
        parts_of(tmp_path / "other.npz")  # a KeyError
    with pytest.raises(stl.InputError, match="expected finite numbers; found NaN"):
        parts_of(np.full((20, 6), np.nan, np.float32))  # was blamed on the model
    with pytest.raises(stl.InputError, match=r"npz file or a folder; found no 'none\.npz'"):
        stl.convert(ann, "none.npz", progress=False)
    with pytest.raises(stl.InputError, match=r"found no 'mnistt' .*'mnist'"):
        stl.convert(ann, "mnistt", progress=False)
    np.savez(tmp_path / "one.npz", x=x[:1].numpy(), y=0 * y[:1].numpy())
    with pytest.raises(stl.InputError, match="found 1; give 10 or more of each class"):
        stl.convert(ann, tmp_path / "one.npz", progress=False)


@pytest.mark.push(1)
@pytest.mark.parametrize("change", [lambda x: 255 * x, lambda x: (x - 0.5) / 0.1, lambda x: 0 * x])
def test_data_that_are_not_as_in_training_are_warned_of(change: Callable[[Tensor], Tensor], ann: nn.Module) -> None:
    x, y = blobs()
    with pytest.warns(UserWarning, match="batch norm '1'"):
        stl.convert(ann, (change(x), y), levels=4, within=3, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stl.convert(ann, (x, y), levels=4, within=3, progress=False)


def test_a_loader_without_batches_is_refused(ann: nn.Module) -> None:
    empty = torch.utils.data.TensorDataset(*(part[:0] for part in blobs()))
    with pytest.raises(stl.InputError):
        stl.convert(ann, torch.utils.data.DataLoader(empty), progress=False)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"levels": 0}, "levels"),
        ({"levels": True}, "levels"),
        ({"within": -1.0}, "within"),
        ({"within": float("inf")}, "within"),
        ({"within": "1"}, "within"),
        ({"form": "x"}, "form"),
        ({"learn": -1}, "learn"),
    ],
)
def test_arguments_out_of_range_are_named(options: dict[str, object], named: str, ann: nn.Module) -> None:
    with pytest.raises(stl.InputError, match=named):
        stl.convert(ann, blobs(), progress=False, **options)


def test_networks_without_relus_are_refused() -> None:
    x, y = blobs(40)
    with pytest.raises(stl.UnsupportedError) as refused:
        stl.convert(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (x, y), progress=False)
    assert refused.value.slug == "no-relu"


def test_a_module_that_keeps_state_has_time() -> None:
    with pytest.raises(stl.CaptureError, match="keeps state"):
        stl.capture(nn.Sequential(nn.Linear(4, 4), stl.LIF((4,), stateful=True)), torch.rand(5, 4), time="none")


class Writes(nn.Module):
    """Scales x in place, and returns something besides its scores."""

    def __init__(self, ann: nn.Module) -> None:
        super().__init__()
        self.ann = ann

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x.mul_(0.5)
        return self.ann(2 * x), x


def test_the_module_and_the_data_stay_as_they_were(ann: nn.Module) -> None:
    x, y = blobs()
    before, model = x.clone(), Writes(ann).train()
    ann[1].eval()
    net = stl.convert(model, (x, y.to(torch.uint8)), levels=4, progress=False)
    assert torch.equal(x, before)
    assert (model.training, ann[1].training) == (True, False)
    ann.eval()
    own = stl.convert(ann, (x, y), levels=4, progress=False).conversion
    assert (net.conversion.accuracy, net.conversion.candidates) == (own.accuracy, own.candidates)
    assert net.evaluate([(x, y)]).module_accuracy > 0.9


class Times(nn.Module):
    """A product of two weighted sums, or of two ReLUs."""

    def __init__(self, *, relus: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.last, self.relus = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 3), relus

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        h = self.a(x)
        return self.last(torch.relu(h) * torch.relu(self.b(x)) if self.relus else h * self.b(x))


def test_products_of_weighted_sums_are_refused() -> None:
    x, y = blobs(40)
    stl.convert(Times(relus=True).eval(), (x, y), levels=4, progress=False)
    with pytest.raises(stl.UnsupportedError) as refused:
        stl.convert(Times(relus=False).eval(), (x, y), progress=False)
    assert refused.value.slug == "no-relu"
    with pytest.raises(stl.UnsupportedError, match=r"weighted sums \(test_convert.py:\d+\), .* behind both"):
        stl.convert(Attends(relus=False).eval(), x, progress=False)


def test_labels_need_an_output_for_each_class() -> None:
    x, y = blobs(40)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    with pytest.raises(stl.InputError, match=r"found \[B, 3, 2, 2\]"):
        stl.convert(model, (x, y), progress=False)
    stl.convert(model, x, levels=4, progress=False)


def test_one_sample_is_too_few(ann: nn.Module) -> None:
    x, y = blobs(1)
    with pytest.raises(stl.InputError):
        stl.convert(ann, (x, y * 0), progress=False)
    with pytest.warns(UserWarning, match="calibrated on 1 sample"):
        assert stl.convert(ann, x, levels=2, progress=False).conversion.samples == 0


def test_ten_samples_of_each_class_are_enough(ann: nn.Module) -> None:
    x, y = blobs()
    rows = torch.cat([torch.nonzero(y == k)[:10, 0] for k in range(2)])
    with pytest.warns(UserWarning, match="calibrated on 14 samples"):
        net = stl.convert(ann, (x[rows], y[rows]), levels=2, progress=False)
    assert (net.conversion.held_out[0], net.conversion.samples) == (2, 4)
    few = torch.cat([torch.nonzero(y == k)[:5, 0] for k in range(3)])
    with pytest.raises(stl.InputError, match="found 15; give 10 or more of each class"):
        stl.convert(ann, (x[few], y[few]), levels=2, progress=False)


def test_a_dead_channel_and_a_constant_input_convert(ann: nn.Module) -> None:
    model = trained()
    with torch.no_grad():
        model[1].bias[0], model[1].weight[0] = -50.0, 0.0
    x, y = blobs()
    net = stl.convert(model, (x, y), levels=4, progress=False)
    assert all(np.all(node.threshold > 0) for node in net.program.spiking)


def test_a_layer_that_is_never_active_has_thresholds_above_0() -> None:
    model = trained()
    with torch.no_grad():
        model[5].weight.zero_()
        model[5].bias.fill_(-1.0)
    net = stl.convert(model, blobs(), levels=4, progress=False)
    assert all(np.all(np.isfinite(node.threshold) & (node.threshold > 0)) for node in net.program.spiking)
    assert net.conversion.accuracy == net.conversion.ann_accuracy


def test_counts_have_a_gradient_straight_through() -> None:
    one = np.asarray([2.0], np.float32)
    nodes = (
        ir.Input(name="in", shape=(1,), operands=()),
        ir.Neuron(
            name="n",
            shape=(1,),
            operands=(ir.Operand("in"),),
            decay=None,
            threshold=one,
            multi_spike=True,
            cap=3,
            rounding="half_up",
            offset=np.asarray([0.5], np.float32),
        ),
        ir.Output(name="out", shape=(1,), operands=(ir.Operand("n"),)),
    )
    module = ProgramModule(ir.Program(nodes, 1e-4))
    x = torch.tensor([[[3.0], [100.0], [-9.0]]], requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.flatten().tolist() == [2, 3, 0]  # 3.5 / 2 rounds to 2; capped; below 0
    assert x.grad.flatten().tolist() == [0.5, 0, 0]  # d(v / θ)/dv within the cap, else 0
    (threshold, offset) = (dict(module.named_parameters())[f"layers.n.{name}"] for name in ("threshold", "offset"))
    assert offset.grad.tolist() == [0.5]
    assert threshold.grad.tolist() == [pytest.approx(-3.5 / 4)]


def test_the_verb_writes_a_program(tmp_path: Path, ann: nn.Module) -> None:
    x, y = blobs()
    (tmp_path / "model.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2),\n"
        "                         nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))\n"
    )
    torch.save(ann.state_dict(), tmp_path / "w.pt")
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y.numpy())
    output = tmp_path / "net.program"
    result = verbs.convert(
        f"{tmp_path / 'model.py'}:make", str(tmp_path / "data.npz"), output, weights=tmp_path / "w.pt", levels=4
    )
    assert output.exists()
    assert result["conversion"]["candidates"][0]["levels"] == 4
    page = output.with_suffix(".html").read_text(encoding="utf-8")
    Page(page)
    assert page.count("<svg") == 1
    assert page.count("<tr>") == 1 + len(result["conversion"]["candidates"])
    with pytest.raises(stl.InputError):
        verbs.convert(f"{tmp_path / 'model.py'}:make", str(tmp_path / "data.npz"), tmp_path / "net.nir")
    read = stl.read(output)
    assert read.conversion.as_dict()["candidates"] == tuple(result["conversion"]["candidates"])
    np.savez(tmp_path / "steps.npz", x=x[None].numpy(), y=y.numpy())
    verbs.report_graph(output, tmp_path / "steps.npz", output=tmp_path / "report")
    checked = verbs.check(output, targets=["onnx"], input_file=tmp_path / "steps.npz")  # refused when it was printed
    assert (checked.effects, set(checked.near_threshold)) == ((), {node.name for node in read.program.spiking})
    report = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    Page(report)
    assert read.conversion.verdict in report
    assert 'id="candidate-table"' in report


def test_a_layer_that_is_never_active_gets_a_threshold_of_1(tmp_path: Path) -> None:
    """A threshold of 1e-38 left no weight in integers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)).eval()
    with torch.no_grad():
        model[3].weight.abs_().neg_()
        model[3].bias.fill_(-0.1)
    net = stl.convert(model, blobs(60)[0], levels=4, progress=False)
    theta = net.program.by_name["4"].threshold
    assert theta.reshape(-1).tolist() == [0.25] * 3
    done = net.fold(input_grid=4, merge_pools=True).export(tmp_path / "c", to="c", progress=False)
    assert [run["differing"] for run in done["verified"]["runs"] if run.get("against") == "loihi"] == [0]


@pytest.mark.parametrize("form", ["counts", "rates"])
def test_files_keep_the_conversion(form: str, tmp_path: Path, ann: nn.Module) -> None:
    net = stl.convert(ann, blobs(60), levels=4, form=form, within=1, progress=False)
    names = ["net.program", "net.nir"][: 1 + (form == "rates")]
    for name in names:
        net.fold(input_grid=4, merge_pools=True).export(tmp_path / name, progress=False)
        assert stl.read(tmp_path / name).conversion == net.conversion


DAMAGED = {
    "no JSON": lambda record: "{",
    "a field less": lambda record: json.dumps({"form": "counts"}),
    "text for a number": lambda record: json.dumps(record | {"within": "0.5"}),
    "a method of its own": lambda record: json.dumps(
        record | {"candidates": [{**record["candidates"][0], "method": "x"}]}
    ),
    "no such candidate": lambda record: json.dumps(record | {"chosen": 99}),
    "no string": lambda record: 3,
}


@pytest.mark.push(2)
@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_record_of_a_conversion_is_refused(how: str, ann: nn.Module) -> None:
    net = stl.convert(ann, blobs(60), levels=4, progress=False)
    entry = DAMAGED[how](net.conversion.as_dict())
    damaged = stl.SpikingGraph(replace(net.program, metadata={**net.program.metadata, "conversion": entry}))
    with pytest.raises(stl.InputError, match="expected the record of a conversion"):
        _ = damaged.conversion


class PooledSum(nn.Module):
    """A residual sum before a max pool."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.last(nn.functional.max_pool2d(torch.relu(self.b(h)) + h, 2).flatten(1))


class PooledTokens(nn.Module):
    """Weights over the last axis of as many tokens as channels, then a max pool over them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.last = nn.Linear(4, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.max_pool1d(torch.relu(self.embed(x[:, 0])), 2).flatten(1))


class Capped(nn.Module):
    """Caps by every spelling, a bottleneck without activation, a sum before a max pool, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.c, self.d, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1), nn.Linear(16, 3)
        self.highest = nn.Parameter(torch.rand(1, 4, 1, 1) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.relu6(self.a(x) * 8)
        h = self.c(torch.clamp(self.b(h), 0, 0.4)) + h
        h = torch.relu(self.b(h)) + h
        h = torch.clamp(self.c(h) / self.highest, 0, 1) * self.highest
        h = self.d(torch.cat([h, nn.functional.hardtanh(self.b(h), 0, 0.2)], 1))
        return self.last(nn.functional.max_pool2d(torch.minimum(torch.relu(h), torch.tensor(0.3)), 2).flatten(1))


class Flipped(nn.Module):
    """A capped sum that two layers read, one of them in another order, so that a Cell has several outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.relu6(self.a(x))
        total = h + self.a(x.flip(3))
        return self.last((self.b(h.flip(2)) + self.b(total) + nn.functional.relu6(total)).flatten(1))


class Branches(nn.Module):
    """Pools and a flattening of concatenations, one of which holds another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)
        self.d, self.last = nn.Conv2d(9, 5, 1), nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        h = nn.functional.max_pool2d(torch.cat([h, torch.relu(self.b(h))], 1), 2)
        h = torch.cat([h, torch.relu(self.c(h))], 1)
        pooled = nn.functional.max_pool2d(h, 2), nn.functional.avg_pool2d(torch.relu(self.d(h)), 2)
        return self.last(torch.cat(pooled, 1).flatten(1))


class Attends(nn.Module):
    """Attention of five tokens with ReLU in place of softmax, behind a token of its own and embeddings of positions."""

    def __init__(self, *, relus: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.q, self.k, self.v, self.o, self.last = (nn.Linear(n, 16) for n in (4, 16, 16, 16, 16, 16))
        self.first, self.at, self.relus = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(5, 16)), relus

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.first.expand(len(x), -1, -1), self.embed(x[:, 0])], 1) + self.at
        q, k, v = (torch.relu(read(tokens)) if self.relus else read(tokens) for read in (self.q, self.k, self.v))
        weights = torch.relu(q @ k.transpose(1, 2) / 4)
        return self.last((tokens + self.o(weights @ v / 5))[:, 0])


class Mixer(nn.Module):
    """A skip between ReLUs whose channels lie along different axes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.last = nn.Conv1d(4, 4, 1), nn.Linear(4, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x[:, 0]))
        return self.last(torch.relu(self.second(h) + h).flatten(1))


@pytest.mark.push(2)
@pytest.mark.parametrize(
    ("make", "form"),
    [
        (PooledSum, "counts"),
        (PooledTokens, "counts"),
        (Mixer, "counts"),
        (Mixer, "rates"),
        (Capped, "counts"),
        (Flipped, "counts"),
        (Branches, "counts"),
        (Attends, "counts"),
    ],
)
def test_many_levels_are_the_ann_in_every_structure(make: type[nn.Module], form: str) -> None:
    """A lost branch or height moves outputs by about their spread; 255 levels by a few hundredths of it."""
    model, (x, _) = make().eval(), blobs(40)
    net = stl.convert(model, x, levels=255, form=form, progress=False)
    with torch.no_grad():
        wanted = model(x).numpy()
    assert np.abs(net.simulate(x).y.mean(0) - wanted).max() < 0.1 * wanted.std()


@pytest.mark.parametrize("levels", [1, 4])
def test_pooled_branches_are_held_by_integers(levels: int, tmp_path: Path) -> None:
    """Weights of 0 and 1 placed the branches before each pool, and integers hold no sums of weights there."""
    net = stl.convert(Branches().eval(), blobs(40)[0], levels=levels, progress=False)
    on_grid = net.fold(input_grid=4, merge_pools=True)
    assert on_grid.check("verilog").ok
    runs = on_grid.export(tmp_path / "c", to="c")["verified"]["runs"]
    assert [run["differing"] for run in runs if run["against"] == "loihi"] == [0]
    if levels == 1:
        on_grid.export(tmp_path / "net.nir")
        on_grid.verify(tmp_path / "net.nir", blobs(20)[0]).require()


@pytest.mark.push(1)
@pytest.mark.parametrize("make", [PooledSum, Mixer, Capped])
def test_the_squared_error_falls_fourfold_where_levels_double(make: type[nn.Module]) -> None:
    """Rounding does so; a lost height or bias would stay."""
    model, (x, _) = make().eval(), blobs(200)
    with torch.no_grad():
        wanted = model(x).numpy()
    errors = [
        np.square(stl.convert(model, x, levels=levels, progress=False).simulate(x).y.mean(0) - wanted).mean()
        for levels in (8, 32, 128)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2] > 0


def test_samples_of_a_group_are_in_one_split() -> None:
    """Ten samples of each of 20 recordings, which each has a value of its own."""
    group = np.arange(200) // 10
    x, y = group[:, None].astype(np.float32) / 32, group % 3
    parts = parts_of(stl.data.from_arrays(x, y, group=group))
    splits = [set(part.flatten().tolist()) for part in (parts.train, parts.held_out[0], parts.test[0])]
    assert all(splits)
    assert sum(map(len, splits)) == 20


def test_labels_with_an_axis_too_many_are_refused(ann: nn.Module) -> None:
    x, y = blobs(40)
    with pytest.raises(stl.InputError):
        stl.convert(ann, (x, y[:, None]), progress=False)


def test_a_module_with_a_reset_has_time_all_the_same() -> None:
    class Averages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.reset()

        def reset(self) -> None:
            self.mean = torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            self.mean = 0.5 * self.mean + torch.relu(self.layer(x))
            return self.mean

    with pytest.raises(stl.CaptureError):
        stl.capture(Averages(), torch.rand(5, 4), time="none")


class Trained(nn.Module):
    """A residual net whose activations are quantised already."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.norm, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.activation = nn.Linear(16, 3), activation

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.norm(self.a(x)))
        return self.last(nn.functional.avg_pool2d(self.activation(self.b(h) + h), 2).flatten(1))


QUANTISED: dict[str, Callable[[Tensor], Tensor]] = {
    "fake quantised": lambda x: torch.fake_quantize_per_tensor_affine(torch.relu(x), 0.3, 0, 0, 7),
    "of tensors": lambda x: torch.fake_quantize_per_tensor_affine(
        torch.relu(x), torch.tensor(0.3), torch.tensor(0), 0, 7
    ),
    "zero point": lambda x: torch.fake_quantize_per_tensor_affine(torch.relu(x), 0.3, 3, 0, 10),
    "behind a cap": lambda x: torch.fake_quantize_per_tensor_affine(nn.functional.relu6(x), 0.3, 0, 0, 7),
    "clamped, then rounded": lambda x: torch.floor(torch.clamp(x / 2.1, 0, 1) * 7 + 0.5) / 7 * 2.1,
    "rounded": lambda x: torch.round(torch.clamp(x / 0.3, 0, 7)) * 0.3,
}


@pytest.mark.push(2)
@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_network_is_counts_as_it_was_trained(name: str) -> None:
    model, (x, y) = Trained(QUANTISED[name]).eval(), blobs(40)
    net = stl.convert(model, (x, y), progress=False)
    assert [(each.levels, each.method) for each in net.conversion.candidates] == [(7, "as trained")]
    assert not any(isinstance(node, ir.Neuron) and not node.spiking for node in net.program.nodes)
    with torch.no_grad():
        assert np.abs(net.simulate(x).y[0] - model(x).numpy()).max() < 1e-5
    assert net.conversion.accuracy == net.conversion.ann_accuracy


def test_counts_have_no_rates() -> None:
    with pytest.raises(stl.UnsupportedError) as refused:
        stl.convert(Trained(QUANTISED["rounded"]).eval(), blobs(40), form="rates", progress=False)
    assert refused.value.slug == "spikes-already"


def test_no_threshold_is_above_a_cap() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Hardtanh(0, 0.05), nn.Linear(8, 3)).eval()
    x, _ = blobs(40)
    net = stl.convert(model, x, levels=4, progress=False)
    assert all(np.all(node.threshold * 4 <= np.float32(0.05)) for node in net.program.spiking)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.Sigmoid(), nn.ELU()])
def test_other_activations_are_refused_and_a_capped_one_converts_in_their_place(activation: nn.Module) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), activation, nn.Linear(8, 3)).eval()
    with pytest.raises((stl.UnsupportedError, stl.CaptureError)) as refused:
        stl.convert(model, blobs(40), progress=False)
    assert "train with ReLU or ReLU6 in its place" in str(refused.value)
    assert "'2'" in str(refused.value)
    model[2] = nn.ReLU6()
    assert stl.convert(model, blobs(40), levels=4, progress=False).conversion.samples == 8


def test_a_module_without_time_is_found(ann: nn.Module) -> None:
    x, _ = blobs(4)
    net = stl.capture(ann, x, progress=False)
    assert net.proof.time == "none"
    with torch.no_grad():
        assert np.abs(net.simulate(x).y[0] - ann(x).numpy()).max() < 1e-5


def test_a_module_that_loops_over_time_is_not_taken_for_one_without(ann: nn.Module) -> None:
    class Loops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.lif = nn.Conv2d(1, 2, 3), stl.LIF((2, 2, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(torch.stack([self.layer(x)] * 4)).mean(0)

    with pytest.raises(stl.CaptureError):
        stl.capture(Loops(), blobs(4)[0], progress=False)
