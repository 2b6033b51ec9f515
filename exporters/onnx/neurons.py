"""Emit one time step of a neuron population, in the Program's order of operations."""

from __future__ import annotations

import numpy as np

from stl_deploy.exporters.onnx.scope import Scope
from stl_deploy.exporters.onnx.states import States
from stl_deploy.graph.program import Adaptation, Floats, Neuron, Synapse


def has_state(node: Neuron) -> bool:
    """Return whether any state persists from one time step to the next."""
    return node.decay is not None or node.synapse is not None or node.delayed_reset or node.adaptation is not None


def neuron_step(scope: Scope, node: Neuron, x: str, states: States, output: str | None = None) -> str:
    """Add one step on the summed input ``x``; returns the name of the output (spikes, or v without a threshold).

    A neuron without state may be given all time steps at once. ``output`` names the spikes.
    """
    name = node.name
    v = _drive(scope, node, x, states)
    before = ""
    if node.decay is not None:
        before = states.open(name, "v", node.shape, node.v_start)
        v = scope.op("Add", [_times(scope, name, "decay", node.decay, before), v], f"{name}/charge")
    if node.offset is not None:  # its name in files stays
        v = scope.op("Add", [scope.weight(f"{name}.leak", node.offset), v], f"{name}/leak")
    if node.threshold is None:
        return _keep(states, node, _bounded(scope, node, v))
    theta = scope.weight(f"{name}.threshold", node.threshold)
    last = states.open(name, "s", node.shape) if node.delayed_reset or node.adaptation is not None else ""
    level = theta if node.adaptation is None else _adapted(scope, node, node.adaptation, theta, last, states)
    if node.adaptation is not None and node.adaptation.subtracts == "adapted":
        theta = level
    if node.delayed_reset:
        v = _reset_late(scope, node, v, theta, last)
    over = (
        _over(scope, name, before, theta) if node.decay is not None and node.reset == "snntorch_subtract_now" else None
    )
    if over is not None:
        v = _subtract(scope, name, v, theta, over)
    v = _bounded(scope, node, v)
    fired, spikes = _fire(scope, node, v, level, output)
    if last:
        states.close(name, "s", spikes)
    if node.delayed_reset:
        pass
    elif over is not None:
        v = _subtract(scope, name, v, theta, scope.op("Sub", [spikes, over], f"{name}/new_spikes"))
    elif node.decay is not None and node.reset != "none":
        v = (
            _subtract(scope, name, v, theta, spikes)
            if node.reset == "subtract"
            else _to_value(scope, node, v, spikes, fired)
        )
    if node.decay is not None:
        states.close(name, "v", v, last=True)
    return spikes


def _adapted(scope: Scope, node: Neuron, adaptation: Adaptation, theta: str, last: str, states: States) -> str:
    """The threshold of this step, from how far it was raised and the spikes of the step before."""
    name = node.name
    raised = states.open(name, "a", node.shape, adaptation.start)
    faded = _times(scope, name, "adaptation_decay", adaptation.decay, raised)
    jump = _times(scope, name, "adaptation_jump", adaptation.jump, last)
    raised = scope.op("Add", [faded, jump], f"{name}/raised")
    states.close(name, "a", raised)
    return scope.op("Add", [theta, raised], f"{name}/adapted")


def _over(scope: Scope, name: str, before: str, theta: str) -> str:
    """Return 1 where the potential was above the threshold at the start of the step."""
    return scope.cast(scope.op("Greater", [before, theta], f"{name}/over"), 1, f"{name}/was_over")


def _drive(scope: Scope, node: Neuron, x: str, states: States) -> str:
    name = node.name
    if node.synapse is not None:
        before = states.open(name, "i", node.shape, node.i_start)
        x = _filter(scope, name, node.synapse, before, x)
        states.close(name, "i", x)
    return x if node.gain is None else _times(scope, name, "gain", node.gain, x)


def _filter(scope: Scope, name: str, synapse: Synapse, before: str, x: str) -> str:
    arriving = x if synapse.gain is None else _times(scope, name, "synapse_gain", synapse.gain, x)
    if synapse.rule == "euler":
        faded = _times(scope, name, "synapse_decay", synapse.decay, before)
        return scope.op("Add", [faded, arriving], f"{name}/current")
    total = scope.op("Add", [before, arriving], f"{name}/current")
    return _times(scope, name, "synapse_decay", synapse.decay, total)


def _bounded(scope: Scope, node: Neuron, v: str) -> str:
    if node.v_min is None:
        return v
    return scope.op("Max", [v, scope.weight(f"{node.name}.v_min", node.v_min)], f"{node.name}/bound")


def _fire(scope: Scope, node: Neuron, v: str, theta: str, output: str | None) -> tuple[str | None, str]:
    """Return names of (a bool where the neuron fired, if there is one; its spikes)."""
    name = node.name
    if not node.multi_spike:
        compare = "Greater" if node.compare == "gt" else "GreaterOrEqual"
        fired = scope.op(compare, [v, theta], f"{name}/compare")
        return fired, scope.op("Cast", [fired], f"{name}/spikes", output=output, to=1)
    zero = scope.number("zero", np.float32(0))
    ratio = scope.op("Div", [v, theta], f"{name}/ratio")
    if node.rounding == "half_even":
        ratio = scope.op("Round", [ratio], f"{name}/nearest")
    elif node.rounding == "half_up":
        ratio = scope.op("Add", [ratio, scope.number("half", np.float32(0.5))], f"{name}/and_half")
        ratio = scope.op("Floor", [ratio], f"{name}/nearest")
    positive = scope.op("Max", [ratio, zero], f"{name}/positive")
    if node.cap is not None:
        positive = scope.op("Min", [positive, scope.weight(f"{name}.cap", np.float32(node.cap))], f"{name}/capped")
    # trunc of what is not negative
    spikes = scope.op("Floor", [positive], f"{name}/spikes", output=output)
    return None, spikes


def _to_value(scope: Scope, node: Neuron, v: str, spikes: str, fired: str | None = None) -> str:
    if not node.multi_spike and (node.v_reset is None or not node.v_reset.any()):
        # v·(1 − s) is exact for finite v, and takes a third of the time of Where (ONNX Runtime 1.32, CPU)
        silent = scope.op("Sub", [scope.number("one", np.float32(1)), spikes], f"{node.name}/silent")
        return scope.op("Mul", [v, silent], f"{node.name}/reset")
    if fired is None:
        fired = scope.op("Greater", [spikes, scope.number("zero", np.float32(0))], f"{node.name}/fired")
    value = np.float32(0) if node.v_reset is None else node.v_reset
    return scope.op("Where", [fired, scope.weight(f"{node.name}.v_reset", value), v], f"{node.name}/reset")


def _reset_late(scope: Scope, node: Neuron, v: str, theta: str, before: str) -> str:
    if node.reset == "subtract_delayed":
        return _subtract(scope, node.name, v, theta, before)
    return _to_value(scope, node, v, before)


def _subtract(scope: Scope, name: str, v: str, theta: str, spikes: str) -> str:
    amount = scope.op("Mul", [theta, spikes], f"{name}/reset_amount")
    return scope.op("Sub", [v, amount], f"{name}/reset")


def _times(scope: Scope, name: str, field: str, factor: Floats, x: str) -> str:
    return scope.op("Mul", [scope.weight(f"{name}.{field}", factor), x], f"{name}/{field}")


def _keep(states: States, node: Neuron, v: str) -> str:
    if node.decay is not None:
        states.close(node.name, "v", v)
    return v
