"""In Brian2's environment (Python 3.12): run groups of equations, all of them within each time step.

A group reads others at once (linked variables), or through synapses whose sums Brian2 adds up (summed variables).
The numpy target is used: no C compiler is needed, and every line is one operation in float32.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def run_job(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return outputs of the kept groups, ``[T, B, n]`` under ``out<place>``."""
    import brian2
    import numpy as np
    from worker import report

    with np.load(job["input"], allow_pickle=False) as given:
        x = given["x"]
    with np.load(job["net"], allow_pickle=False) as given:
        described = json.loads(str(given["groups"]))
        arrays = {name: given[name] for name in given.files if name != "groups"}
    brian2.prefs.codegen.target = "numpy"
    brian2.prefs.codegen.loop_invariant_optimisations = False
    brian2.prefs.core.default_float_dtype = np.float32
    brian2.defaultclock.dt = 1 * brian2.second
    groups, objects = build(brian2, described, arrays)
    steps, samples = x.shape[:2]
    inputs = [place for place, group in enumerate(described) if not group["reads"]]
    kept = [place for place, group in enumerate(described) if group["keep"]]
    outputs = {
        f"out{place}": np.zeros(
            (steps, samples, described[place]["size"]), np.uint8 if described[place]["binary"] else np.float32
        )
        for place in kept
    }
    now = [0]

    def enter() -> None:
        sample, step = divmod(now[0], steps)
        if step == 0:
            rest(described, groups, arrays)
        start = 0
        for place in inputs:
            size = described[place]["size"]
            groups[place].out[:] = x[step, sample, start : start + size]
            start += size

    def leave() -> None:
        sample, step = divmod(now[0], steps)
        for place in kept:
            outputs[f"out{place}"][step, sample] = groups[place].out[:]
        now[0] += 1
        if step == steps - 1:
            report(folder, sample + 1, samples)

    objects.append(brian2.NetworkOperation(enter, when="start"))
    objects.append(brian2.NetworkOperation(leave, when="end", order=-1))
    brian2.Network(*objects).run(steps * samples * brian2.second, namespace={})
    return outputs


def build(brian2: Any, described: list[dict[str, Any]], arrays: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return groups by place, and every object of the network, ordered within a step by place and block."""
    longest = [0] * len(described)
    for group in described:
        for place, ago in group["reads"]:
            longest[place] = max(longest[place], ago)
    groups = []
    step = 1 + max(len(group["code"]) for group in described)
    for place, group in enumerate(described):
        past = [f"past{ago}" for ago in range(1, longest[place] + 1)]
        lines = [f"{name} : 1" for name in ["out", *group["state"], *past]]
        lines += [f"{name} : 1 (constant)" for name in group["constants"]]
        how = "" if group["synapses"] else " (linked)"
        lines += [f"x{k} : 1{how}" for k in range(len(group["reads"]))]
        made = brian2.NeuronGroup(group["size"], "\n".join(lines), name=f"group{place}")
        for name in group["constants"]:
            setattr(made, name, arrays[f"{place}.{name}"])
        for block, code in enumerate(group["code"]):
            made.run_regularly(code, when="groups", order=place * step + block + 1, name=f"group{place}_{block}")
        if past:
            shift = [f"past{ago} = past{ago - 1}" for ago in range(longest[place], 1, -1)]
            made.run_regularly("\n".join([*shift, "past1 = out"]), when="end", name=f"group{place}_past")
        groups.append(made)
    objects = list(groups)
    for place, group in enumerate(described):
        for k, (source, ago) in enumerate(group["reads"]):
            name = f"past{ago}" if ago else "out"
            if not group["synapses"]:
                setattr(groups[place], f"x{k}", brian2.linked_var(groups[source], name))
                continue
            model = f"weight : 1 (constant)\nx{k}_post = weight*{name}_pre : 1 (summed)"
            synapses = brian2.Synapses(groups[source], groups[place], model, name=f"synapses{place}")
            synapses.connect(i=arrays[f"{place}.source"], j=arrays[f"{place}.target"])
            synapses.weight = arrays[f"{place}.weight"]
            synapses.summed_updaters[f"x{k}_post"].order = place * step
            objects.append(synapses)
    return groups, objects


def rest(described: list[dict[str, Any]], groups: list[Any], arrays: dict[str, Any]) -> None:
    """Reset every variable to its value before the first step of a sample."""
    for place, (group, made) in enumerate(zip(described, groups, strict=True)):
        past = [name for name in made.variables if name.startswith("past")]
        for name in ["out", *group["state"], *past]:
            getattr(made, name)[:] = arrays.get(f"{place}.start_{name}", 0)


if __name__ == "__main__":
    exporters = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, os.path.join(exporters, "lava", "side"))
    from worker import main

    main(sys.argv[1], run_job)
