"""Trace any torch module: turn one run into the graph of one time step.

Rooms, in the order of the way: `recording`, `unrolling`, `recognition`, `layers`, `proof`. One LIF, all the way::

    for x in inputs:                     recorder: ATen operations and the values between them
        i = self.fc(x)                   unroll: a node for each operation in each step
        v = v + (i - v) / 2              steps: v of one step reads v of the step before: a signal with lag 1
        s = 1 - (v < self.theta).int()   spellings: v >= θ; thresholds: θ is a constant; cores: the signals that hold v
        v = v * (1 - s)                  normal_form: v = ½·H - ½·S·H + ½·i of its last value H and last spike S

`updates` writes a core's update in normal form, `readings` identifies it (decay ½, gain ½, reset to 0), `populations`
makes the neuron, and `trial` runs it beside the code. What is no neuron becomes a Cell (`cells`, `lowering`). `layers`
makes a Program, and `replay` runs the step with torch's own kernels, for comparison with the model.
"""

from stl_deploy.config.options import Time
from stl_deploy.tracing.recording.model_state import uncompiled
from stl_deploy.tracing.recording.running import Call
from stl_deploy.tracing.trace import Traced, trace

__all__ = ["Call", "Time", "Traced", "trace", "uncompiled"]
