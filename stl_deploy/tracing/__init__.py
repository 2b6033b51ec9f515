"""Trace any torch module: turn one run into the graph of one time step.

The way through: `recorder` records a run as values; `unroll` (with `rules`, `elementwise`, `addresses`) tells what
each step computes; `steps` finds the one step that repeats; `cores`, `coefficients`, `readings` (with `at_once`) and
`populations` read neurons off its arithmetic; `layers` makes a Program. `replay` runs the step with torch's own
kernels, for comparison with the model.
"""

from stl_deploy.config.options import Time
from stl_deploy.tracing.model_state import uncompiled
from stl_deploy.tracing.running import Call
from stl_deploy.tracing.trace import Traced, trace

__all__ = ["Call", "Time", "Traced", "trace", "uncompiled"]
