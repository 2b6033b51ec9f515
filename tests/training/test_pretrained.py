"""Ready-made models: their cards tell the truth about the files, and they unpack to a finished run."""

import json
import re
import shutil

import pytest
import torch

from benchmarks.ready_made import packed
from stl_deploy.config.load import load_config
from stl_deploy.data import load_dataset
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.pipeline.pretrained import run_pretrained
from stl_deploy.training import pretrained
from stl_deploy.training.evaluate import evaluate
from stl_deploy.training.model_file import load_network, model_facts
from stl_deploy.training.pretrained.unpacking import unpack, unpacked
from stl_deploy.training.run_folder import TWIN


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


def test_cards_are_whole():
    for name in pretrained.names():
        card = json.loads((pretrained.models_folder() / name / "card.json").read_text())
        assert card["licence"]
        assert card["command"].startswith("stl-deploy train ")
        for key in ("accuracy", "twin_accuracy"):
            share = card[key]["correct"] / card[key]["samples"]
            assert card[key]["low"] < share < card[key]["high"]


def test_a_shipped_twin_of_another_recipe_is_taken_as_it_is(tmp_path, monkeypatch):
    """A twin may have been trained for fewer epochs, as its card says: the ready-made way trains nothing."""

    def other(name, run_dir, data_dir):
        about = unpack(name, run_dir, data_dir)
        config = run_dir / "twin" / "config.yaml"
        config.write_text(re.sub(r"epochs: \d+", "epochs: 3", config.read_text()))
        return about

    monkeypatch.setattr("stl_deploy.pipeline.pretrained.unpack", other)
    before = pretrained.models_folder() / "digits" / "twin.safetensors"
    run_pretrained("digits", tmp_path / "run", lava=False)
    assert not (tmp_path / "run" / "twin" / "metrics.jsonl").exists()
    assert (tmp_path / "run" / "twin" / "model.safetensors").stat().st_size <= 2 * before.stat().st_size
    assert json.loads((tmp_path / "run" / "energy.json").read_text())["ann_twin"] is not None


def test_a_data_dir_that_the_dataset_does_not_take_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"'dataset\.data_dir': expected none for digits"):
        unpack("digits", tmp_path / "run", "somewhere")
    assert not (tmp_path / "run").exists()
