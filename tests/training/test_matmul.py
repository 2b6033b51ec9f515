"""The precision of matrix products is measured, asked for, and put back."""

import json

import pytest
import torch
from safetensors.torch import load_file

from stl_deploy.config.load import apply_overrides, load_config
from stl_deploy.data import load_dataset
from stl_deploy.nn.network import Network
from stl_deploy.training import loop as train_module
from stl_deploy.training import matmul_precision as matmul
from stl_deploy.training.evaluate import evaluate
from stl_deploy.training.loop import train
from stl_deploy.training.matmul_precision import Measured, advice, matmul_precision, measure, settle


def test_every_setting_is_measured_and_the_default_is_accurate():
    threads = torch.get_num_threads()
    found = {one.precision: one for one in measure()}
    assert set(found) == {"highest", "high", "medium"}
    assert 0 < found["highest"].error < 1e-5
    assert all(one.seconds > 0 for one in found.values())
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_num_threads() == threads


def settings(seconds, error):
    return (Measured("highest", 2.0, 4e-7), Measured("high", 2.0, 4e-7), Measured("medium", seconds, error))


@pytest.mark.parametrize(
    ("medium", "sentence", "taken"),
    [
        (
            (1.0, 9e-7),
            "training takes 'medium', 2.0x as fast as 'highest' here (error 9.0e-07 against 4.0e-07: rounding of "
            "float32 sums)",
            "medium",
        ),
        ((1.0, 1e-5), "none of the accuracy of 'highest' is 1.5 times as fast; less accurate here: medium", "highest"),
        ((1.4, 4e-7), "none of the accuracy of 'highest' is 1.5 times as fast", "highest"),
    ],
)
def test_accuracy_is_never_traded(medium, sentence, taken, monkeypatch):
    assert advice(settings(*medium)) == f"matrix products: {sentence}"
    monkeypatch.setattr(matmul, "measured_once", lambda: settings(*medium))
    assert settle("auto") == taken
    assert settle("medium") == "medium"


def test_a_run_goes_on_with_its_setting_where_that_is_accurate(monkeypatch):
    monkeypatch.setattr(matmul, "measured_once", lambda: settings(1.0, 9e-7))
    assert settle("auto", "highest") == "highest"
    monkeypatch.setattr(matmul, "measured_once", lambda: settings(1.0, 1e-3))
    assert settle("auto", "medium") == "highest"


def test_on_a_card_auto_is_highest(monkeypatch):
    """Other settings are TF32 there, whatever they are on this CPU, which is not measured."""
    monkeypatch.setattr(matmul, "measured_once", lambda: pytest.fail("measured"))
    assert settle("auto", "medium", device="cuda") == "highest"
    assert settle("medium", device="cuda") == "medium"


def test_highest_is_true_of_a_cards_convolutions_too():
    default = torch.backends.cudnn.allow_tf32
    with matmul_precision("highest"):
        assert not torch.backends.cudnn.allow_tf32
        with matmul_precision("medium"):
            assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 is default


def test_evaluation_takes_highest_whatever_is_set(monkeypatch):
    config = load_config("digits")
    network, seen = Network(config, (1, 8, 8), 10), set()
    monkeypatch.setattr(network, "scores", lambda x: seen.add(torch.get_float32_matmul_precision()) or x.mean(0))
    with matmul_precision("medium"):
        evaluate(network, load_dataset(config.dataset).validation, config)
        assert torch.get_float32_matmul_precision() == "medium"
    assert seen == {"highest"}


def test_shortened_operands_are_told_from_rounding():
    """TF32 keeps 11 bits, bfloat16 8, two bfloat16s 16: all are further off than another order of summation."""
    draws = torch.Generator().manual_seed(0)
    a, b = (torch.randn(768, 768, generator=draws) for _ in range(2))
    exact = a.double() @ b.double()

    def measured(c):
        return Measured("medium", 1.0, float((c.double() - exact).abs().max() / exact.abs().max()))

    def short(x, bits):
        mantissa, exponent = torch.frexp(x.double())
        return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent)

    base = measured(a @ b)
    halves = a[:, :384] @ b[:384] + a[:, 384:] @ b[384:]
    assert measured(halves).as_accurate_as(base)
    assert not any(measured(short(a, bits) @ short(b, bits)).as_accurate_as(base) for bits in (8, 11, 16))


def test_the_setting_is_put_back_even_after_an_error():
    def fail():
        with matmul_precision("medium"):
            assert torch.get_float32_matmul_precision() == "medium"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_float32_matmul_precision() == "highest"


def test_training_uses_it_and_validation_does_not(tiny, tmp_path, monkeypatch):
    seen = {"augment": set(), "evaluate": set()}

    def watch(name):
        real = getattr(train_module, name)

        def watched(*args, **options):
            seen[name].add(torch.get_float32_matmul_precision())
            return real(*args, **options)

        monkeypatch.setattr(train_module, name, watched)

    watch("augment")  # of every batch that is trained on
    watch("evaluate")
    train(apply_overrides(tiny, ["train.matmul=medium", "train.epochs=1"]), tmp_path)
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (record["matmul"], record["threads"]) == ("medium", torch.get_num_threads())
    assert seen == {"augment": {"medium"}, "evaluate": {"highest"}}
    assert load_file(tmp_path / "model.safetensors")
