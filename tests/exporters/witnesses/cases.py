"""Networks that nengo-loihi's emulator is asked about: drawn ones, and one past its 21 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from stl_deploy.errors import InputError
from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.exporters.netx.target import WIDE
from stl_deploy.exporters.witnesses.rows import net_arrays
from stl_deploy.integers.net import DECAY_ONE
from tests.exporters.netx.nets import Case, chain, dense, neuron, random_case


def held(net: NetxFile, x: Any) -> bool:
    """Whether single connections can be it, and no sum, filtered or not, passes nengo-loihi's accumulators."""
    try:
        arrays = net_arrays(net)
    except InputError:
        return False
    high = int(x.max())
    for key in (str(key) for key in arrays["keys"]):
        reach = np.bincount(arrays[f"{key}.targets"], np.abs(arrays[f"{key}.weights"])) * high
        slowest = max(1, int(arrays[f"{key}.i_decay"].min()))
        if (
            reach.max() >= WIDE
            or 64 * (reach.max() * DECAY_ONE / slowest + np.abs(arrays[f"{key}.bias"]).max()) >= 2**23
        ):
            return False
        high = 1
    return x.min() >= 0


def cases() -> dict[str, Case]:
    drawn = {f"random{seed:02d}": random_case(seed, longest=30) for seed in range(90)}
    return {name: case for name, case in drawn.items() if held(*case)} | {"wide": wide()}


def wide() -> Case:
    """A weight of 200 that gets 163 and then 164 spikes: 32,600 fires above 1,000; 32,800 is past 2^15 and wraps."""
    return chain((1,), dense([[200]], neuron=neuron(4096, 1000))), np.array([163, 164], np.int16).reshape(2, 1, 1)
