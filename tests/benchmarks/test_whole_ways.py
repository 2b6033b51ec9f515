"""The benchmark of whole ways: what it runs, and the page that it writes."""

import pytest
from torch import nn

from benchmarks import whole_ways
from benchmarks.whole_ways import ResNet18, Way, measure, page


def test_seconds_and_memory_are_those_of_the_process(monkeypatch):
    eats = "kept = b'x' * (300 * 2**20); import time; time.sleep(0.4)"
    ways = {"eats": Way("eats", ("-c", eats), 1, 8), "fails": Way("fails", ("-c", "raise SystemExit(3)"), 1)}
    monkeypatch.setattr(whole_ways, "WAYS", ways)
    found = measure(["eats"], 2)
    assert all(seconds > 0.3 for seconds in found["eats"]["seconds"])
    assert all(300 * 2**20 < peak < 2**31 for peak in found["eats"]["bytes"])
    shown = page({"rounds": 2, "processor": "p", "threads": 1, "torch": "t", "load": 9.0, "ways": found})
    assert "| eats | " in shown
    assert "| 1 | 0.3" in shown
    assert "(not a quiet machine)" in shown
    with pytest.raises(SystemExit, match="fails: exit status 3"):
        measure(["fails"], 1)


def test_the_resnet_is_of_the_published_size():
    layers = [module for module in ResNet18().modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    weights = sum(layer.weight.numel() for layer in layers)
    assert 11.6e6 < weights < 11.8e6
