"""The integer model against recordings of real Lava, and proof that each rule of it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stl_deploy.exporters.netx import convert
from stl_deploy.integers import simulate, step, sums
from stl_deploy.integers.real_weights import late
from tests.exporters.netx.golden import Golden, goldens

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Golden]:
    found = list(goldens(tmp_path_factory.mktemp("golden")))
    assert sum(golden.name.startswith(("random", "long")) for golden in found) == 200
    assert max(golden.x.shape[0] for golden in found) == 100
    return found


def differing(golden: Golden) -> int:
    run = convert.run_file(golden.net, golden.x, record=True)
    assert run.spikes.keys() == golden.spikes.keys()
    return sum(int(np.count_nonzero(run.spikes[key] != golden.spikes[key])) for key in golden.spikes)


def test_every_spike_of_every_layer_is_lavas(recorded: list[Golden]) -> None:
    assert {golden.name: differing(golden) for golden in recorded} == {golden.name: 0 for golden in recorded}


def test_the_recordings_hold_spikes_and_silence(recorded: list[Golden]) -> None:
    rates = [spikes.mean() for golden in recorded for spikes in golden.spikes.values()]
    assert sum(0.02 < rate < 0.9 for rate in rates) > 0.7 * len(rates)


def _late(layer: Any, node: Any, arriving: Any, *args: Any) -> Any:
    return _sum_and_step(layer, node, [late(x) for x in arriving], *args)


def _halved(v: Any, fired: Any) -> Any:
    return np.where(fired, v / 2, v)


def _wraps_below(u: Any) -> Any:
    return np.where(u <= -(2**23), u + u.dtype.type(2**24), u)


def _wraps_above(u: Any) -> Any:
    return np.where(u > 2**23, u - u.dtype.type(2**24), u)


def _no_bias(neuron: Any, sums: Any, bias: Any, spikes: Any, **rest: Any) -> None:
    _step_through(neuron, sums, None, spikes, **rest)


def _fires_at(v: Any, threshold: Any, fired: Any) -> None:
    np.greater_equal(v, threshold, out=fired)


class _WithoutDelays(sums.DenseSums):
    def __init__(self, layer: Any, x: Any) -> None:
        super().__init__(replace(layer, delay=None), x)


_sum_and_step, _step_through = simulate.sum_and_step, step.step_through

MUTANTS: dict[str, Patch] = {
    "decay rounds down": lambda m: m.setattr(step, "toward_zero", np.floor),
    "decay does not round": lambda m: m.setattr(step, "toward_zero", lambda product: product),
    "fires at the threshold": lambda m: m.setattr(step, "fires", _fires_at),
    "no reset": lambda m: m.setattr(step, "reset", lambda v, fired: v),
    "soft reset": lambda m: m.setattr(step, "reset", _halved),
    "u does not wrap": lambda m: m.setattr(step, "wrap", lambda u: u),
    "u wraps below zero only": lambda m: m.setattr(step, "wrap", _wraps_below),
    "u wraps above zero only": lambda m: m.setattr(step, "wrap", _wraps_above),
    "v does not saturate": lambda m: m.setattr(step, "saturate", lambda v, least, most: v),
    "state shift of 5": lambda m: m.setattr(step, "STATE_SHIFT", 5),
    "weights taken as written": lambda m: m.setattr(convert, "stored_weights", lambda weight: (weight, 0)),
    "shift rounds up": lambda m: m.setattr(sums, "shift_right", lambda total, bits: -(-total >> bits)),
    "weights keep their low bits": lambda m: m.setattr(convert, "truncate", lambda magnitude, bits: magnitude),
    "conv sum does not wrap": lambda m: m.setattr(sums, "wrap24", lambda total: total.astype(np.int32)),
    "one step late": lambda m: m.setattr(simulate, "sum_and_step", _late),
    "bias ignored": lambda m: m.setattr(simulate, "step_through", _no_bias),
    "delays ignored": lambda m: m.setattr(sums, "DenseSums", _WithoutDelays),
    "graded input as events": lambda m: m.setattr(simulate, "as_integers", lambda x, _: (x != 0).astype(np.int32)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_rule_is_noticed(name: str, recorded: list[Golden], monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    assert any(differing(golden) for golden in recorded)
