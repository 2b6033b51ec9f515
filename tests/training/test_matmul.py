"""The precision of matrix products is measured, asked for, and put back."""

import pytest
import torch
from safetensors.torch import load_file

from stl_deploy import train as train_module
from stl_deploy.config_io import apply_overrides
from stl_deploy.matmul import Measured, advice, matmul_precision, measure
from stl_deploy.train import train


def test_every_setting_is_measured_and_the_default_is_accurate():
    found = {one.precision: one for one in measure()}
    assert set(found) == {"highest", "high", "medium"}
    assert 0 < found["highest"].error < 1e-5
    assert all(one.seconds > 0 for one in found.values())
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("medium", "sentence"),
    [
        ((1.0, 1e-7), "--set train.matmul=medium is 2.0x as fast at the same accuracy"),
        ((1.0, 1e-3), "'highest' is as fast as any of the same accuracy; less accurate here: medium"),
        ((1.9, 1e-7), "'highest' is as fast as any of the same accuracy"),
    ],
)
def test_advice_never_trades_accuracy(medium, sentence):
    found = (Measured("highest", 2.0, 2e-7), Measured("high", 2.0, 2e-7), Measured("medium", *medium))
    assert advice(found) == f"matrix products: {sentence}"


def test_the_setting_is_put_back_even_after_an_error():
    def fail():
        with matmul_precision("medium"):
            assert torch.get_float32_matmul_precision() == "medium"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_float32_matmul_precision() == "highest"


def test_training_uses_it_and_validation_does_not(tiny, tmp_path, monkeypatch):
    seen = {"train": set(), "evaluate": set()}

    def watch(name):
        real = getattr(train_module, name)

        def watched(*args):
            seen[name.strip("_").removesuffix("_epoch")].add(torch.get_float32_matmul_precision())
            return real(*args)

        monkeypatch.setattr(train_module, name, watched)

    watch("_train_epoch")
    watch("evaluate")
    train(apply_overrides(tiny, ["train.matmul=medium", "train.epochs=1"]), tmp_path)
    assert seen == {"train": {"medium"}, "evaluate": {"highest"}}
    assert load_file(tmp_path / "model.safetensors")
