"""Our model of the chip: recordings of xylosim, every rule by mutation, and small nets worked out by hand."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stl_deploy.exporters.targets import Options
from stl_deploy.exporters.witnesses.environment import XYLOSIM
from stl_deploy.exporters.witnesses.target import XyloSim
from stl_deploy.exporters.xylo import simulate as module
from stl_deploy.exporters.xylo.simulate import ChipStates, simulate
from stl_deploy.exporters.xylo.specification import checked
from tests.exporters.xylo.drawn import KINDS, draw
from tests.exporters.xylo.record_golden import GOLDEN, SEEDS

FIELDS = ("spikes", "outputs", *ChipStates._fields)
needs_xylosim = pytest.mark.skipif(XYLOSIM.reason() is not None, reason=str(XYLOSIM.reason()))


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def field(run: Any, name: str) -> Any:
    return getattr(run.states if name in ChipStates._fields else run, name)


def differing(golden: dict[str, Any], kind: str, seed: int, model: Any = module) -> int:
    case = f"{kind}.{seed}."
    parts = {
        part: {name.rpartition(".")[2]: a for name, a in golden.items() if name.startswith(f"{case}{part}.")}
        for part in ("spec", "run", "in")
    }
    run = model.simulate(checked(parts["spec"], case), parts["in"]["x"], record=True)
    return sum(int((field(run, name) != parts["run"][name]).sum()) for name in FIELDS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_spike_and_state_is_xylosims(golden: dict[str, Any], kind: str, seed: int) -> None:
    assert differing(golden, kind, seed) == 0


MUTATIONS = {
    "spike by spike": ("risky.any()", "False"),
    "channels before recurrence": (
        "np.flatnonzero(arriving.any(axis=0))",
        "np.flatnonzero(arriving.any(axis=0))[::-1]",
    ),
    "currents saturate": ("one = np.clip(more, STATE_LOW, STATE_TOP)", "one = more"),
    "current decays before it acts": (
        "        i -= decayed(i, self._dash_syn)\n",
        "        kept = i\n        i = i - decayed(i, self._dash_syn)\n        self.i, i = i, kept\n",
    ),
    "decay rounds down": ("lost = values >> dash", "lost = np.sign(values) * (np.abs(values) >> dash)"),
    "decay of at least 1": ("np.where((lost == 0) & (values > 0), 1, lost)", "lost"),
    "the leak wraps": ("wrapped(-decayed(self.v", "(-decayed(self.v"),
    "change saturates": ("self._saturated(change + i.sum(axis=2))", "(change + i.sum(axis=2))"),
    "change with bias saturates": ("self._saturated(change + self._bias)", "(change + self._bias)"),
    "potentials saturate": ("self._saturated(self.v + change)", "(self.v + change)"),
    "cap of inputs": ("np.minimum(x, INPUT_CAP)", "np.minimum(x, 7)"),
    "cap of hidden neurons": ("spec.bias_hidden, HIDDEN_CAP", "spec.bias_hidden, 2 * HIDDEN_CAP"),
    "cap of outputs": ("        OUTPUT_CAP,\n", "        HIDDEN_CAP,\n"),
    "a spike at the threshold": ("np.maximum(v, 0) // np", "np.maximum(v - 1, 0) // np"),
    "what is left stays": ("v -= own * threshold", "v[own > 0] = 0"),
    "recurrence one step late": ("np.concatenate([entering[t], before]", "np.concatenate([entering[t], 0 * before]"),
    "outputs hear the step before": ("outputs.step(before[", "outputs.step(fired["),
    "an alias lends before": ("np.minimum(lent[:, target] + spikes[:, giver], self._cap)", "lent[:, target]"),
    "an alias adds after": ("np.minimum(spikes[:, target] + spikes[:, giver], self._cap)", "spikes[:, target]"),
    "lent spikes count": ("return lent + own", "return own"),
    "lent spikes leave less room": ("room = self._cap - lent", "room = self._cap - 0 * lent"),
    "input shift": ("<< spec.weight_shift_in", "<< 0"),
    "recurrent shift": ("<< spec.weight_shift_rec", "<< 0"),
    "output shift": ("<< spec.weight_shift_out", "<< 0"),
    "second synapse": ("[spec.dash_syn, spec.dash_syn_2]", "[spec.dash_syn, spec.dash_syn]"),
    "the last are heard": ("before[:, spec.hidden - spec.heard :]", "before[:, : spec.heard]"),
    "a threshold of 0": ("self._cap * (v >= 0)", "0 * v"),
}


@pytest.mark.push(9)
@pytest.mark.parametrize("rule", MUTATIONS)
def test_every_rule_is_noticed(golden: dict[str, Any], rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = MUTATIONS[rule]
    assert module.__file__ is not None
    with open(module.__file__) as stream:
        source = stream.read()
    assert source.count(before) == 1
    changed = ModuleType("mutated")
    monkeypatch.setitem(sys.modules, "mutated", changed)
    exec(source.replace(before, after), vars(changed))
    assert any(differing(golden, kind, seed, changed) for kind in KINDS for seed in SEEDS)


def one_neuron(**fields: Any) -> Any:
    spec = {
        "weights_in": np.array([[[8]]]),
        "weights_rec": np.zeros((1, 1, 1), int),
        "weights_out": np.array([[4]]),
        "threshold": np.array([10]),
        "threshold_out": np.array([4]),
        **{name: np.array([1]) for name in ("dash_mem", "dash_mem_out", "dash_syn", "dash_syn_out")},
    }
    return checked(spec | fields, "spec")


def test_a_neuron_by_hand() -> None:
    run = simulate(one_neuron(), np.array([5, 0, 0, 0]).reshape(4, 1, 1), record=True)
    # i: 40 -> 20 before it acts, 10, 5, 3 (5 - floor(5/2)). v: 20 fires twice; 10 fires; 5; 2.5 -> 3 kept of 5, + 3
    assert run.states is not None
    assert run.states.i.ravel().tolist() == [20, 10, 5, 3]
    assert run.spikes.ravel().tolist() == [2, 1, 0, 0]
    assert run.states.v.ravel().tolist() == [0, 0, 5, 6]
    assert run.outputs.ravel().tolist() == [0, 1, 1, 0]


def test_what_saturates_is_counted() -> None:
    loud = one_neuron(weights_in=np.array([[[127]]]), weight_shift_in=np.array(7), threshold=np.array([32767]))
    run = simulate(loud, np.full((6, 2, 1), 15))
    assert run.saturated.tolist() == [12]
    assert run.saturated_out.tolist() == [0]
    assert simulate(one_neuron(), np.full((6, 2, 1), 15)).saturated.tolist() == [0]


@pytest.mark.nightly
@needs_xylosim
@pytest.mark.parametrize("kind", KINDS)
def test_xylosim_itself(kind: str) -> None:
    spec, x = draw(kind, 7)
    ours, theirs = simulate(checked(spec, kind), x, record=True), XyloSim.__new__(XyloSim)
    theirs._options = Options()
    found = theirs.integers(checked(spec, kind), x, True)
    assert all(np.array_equal(field(ours, name), field(found, name)) for name in FIELDS)
