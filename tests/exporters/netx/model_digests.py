"""What netx's integer model made of random networks: one SHA-256 for each group of them.

    python -m tests.exporters.netx.model_digests          # records model_digests.json anew

Recorded when this model still ran beside the one that it replaced, and both were equal to the bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.netx.convert import run_file, to_graph
from stl_deploy.exporters.netx.layers import NO_NEURON, ConvLayer, DenseLayer, FlattenLayer, InputLayer, Layer, NetxFile
from stl_deploy.exporters.netx.model import quantise
from stl_deploy.graph.program import Neuron, Program
from stl_deploy.integers.net import IntegerNeuron, Ints
from stl_deploy.integers.ranges import ranges
from stl_deploy.integers.real_weights import to_integers
from tests.exporters.netx.nets import Case, random_case
from tests.exporters.netx.programs import Builder, F

FILE = Path(__file__).with_suffix(".json")
FORMS = ("folded", "per-layer", "per-neuron", "projected", "unrolled")

Rng = np.random.Generator


def groups() -> dict[str, Any]:
    """Return the digest of each group, with the spikes that it holds."""
    found = {
        f"{form}, {'image' if image else 'dense'}, 1/{scale}": _digest(
            _of_program(seed, form, image, scale) for seed in range(2)
        )
        for form in FORMS
        for image in (False, True)
        for scale in (1, 16)
    }
    lava_dl = [case for case in map(_of_lava_dl, range(120)) if case is not None]
    found["files of lava-dl"] = _digest(_of_run(*case) for case in lava_dl)
    found["files of any shape"] = _digest(_of_file(*random_case(seed)) for seed in range(60))
    return found


def _digest(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    made, spikes = hashlib.sha256(), 0
    for values in runs:
        spikes += sum(int(np.sum(value)) for key, value in values.items() if key.startswith("spikes "))
        made.update(json.dumps({key: np.asarray(value).tolist() for key, value in values.items()}).encode())
    return {"spikes": spikes, "sha256": made.hexdigest()}


def _of_program(seed: int, form: Any, image: bool, scale: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    program = _program(rng, image)
    if image and form in ("projected", "unrolled"):
        program = _per_pixel(rng, program)
    x = np.round(rng.random((6, 40, *program.inputs[0].shape)) * scale) / scale
    x = np.asarray(x if scale > 1 else x < 0.4, F)
    model = quantise(program, x, input_scale=scale, thresholds=form)
    assert model.integers is not None
    rows = {f"scale {name}": rows for name, rows in model.integers.row_scales.items()}
    fits = {f"fit {fit.node}": [fit.spikes_differing, fit.spikes_compared] for fit in model.integers.fits}
    return rows | fits | _of_file(model.file, to_integers(x, scale))


def _of_file(net: NetxFile, x: Any) -> dict[str, Any]:
    """Of the file's arrays, what its potentials can and did reach (not of delays), and its run."""
    arrays = {
        f"{place} {name}": value
        for place, layer in enumerate(net.layers)
        for part in (layer, getattr(layer, "neuron", None))
        for name, value in (vars(part) if part is not None else {}).items()
        if isinstance(value, np.ndarray | int)
    }
    if any(isinstance(layer, DenseLayer) and layer.delay is not None for layer in net.layers):
        return arrays | _of_run(net, x)
    reached = {f"range {r.node}": [r.u_worst, r.v_worst, r.u_seen, r.v_seen] for r in ranges(to_graph(net), x)}
    return arrays | reached | _of_run(net, x)


def _of_run(net: NetxFile, x: Any) -> dict[str, Any]:
    run = run_file(net, x, record=True)
    return {f"spikes {key}": spikes for key, spikes in run.spikes.items()} | {"y": run.y}


def _program(rng: Rng, image: bool) -> Program:
    """A dense chain, or one that begins with a convolution and a max pool; every field of neurons that netx holds."""
    build = Builder((2, 8, 8) if image else (24,))
    if image:
        build.conv("c1", rng.standard_normal((5, 2, 3, 3)) * 0.4, rng.standard_normal(5) * 0.05, ((1, 1), (1, 1)))
        _neuron(rng, build, "n1", _thresholds(rng, (5, 1, 1)))
        build.max_pool("p").flatten("f")
    first = rng.standard_normal((16, build.shape[0])) * 0.4
    if rng.integers(3) == 0:
        first = -np.abs(first)
    build.linear("l1", first, rng.standard_normal(16) * 0.3 + 0.3)
    _neuron(rng, build, "n2", _thresholds(rng, (16,)))
    build.linear("l2", rng.standard_normal((10, 16)) * 0.7)
    _neuron(rng, build, "n3", _thresholds(rng, () if rng.integers(2) else (10,)))
    if rng.integers(2):
        build.linear("vote", np.repeat(np.eye(5), 2, axis=1) / 2)
    return build.program()


def _thresholds(rng: Rng, shape: tuple[int, ...]) -> Any:
    return (0.3 + rng.random(shape)).astype(F)


def _neuron(rng: Rng, build: Builder, name: str, theta: Any) -> None:
    fields: dict[str, Any] = [{}, {"gain": np.asarray(0.6, F)}, {"offset": np.asarray(0.03, F)}][int(rng.integers(3))]
    beta = float(rng.choice([0, 0.5, 0.9, 0.77, 1]))
    build.lif(name, theta, beta=beta, compare=str(rng.choice(["gt", "ge"])), **fields)


def _per_pixel(rng: Rng, program: Program) -> Program:
    first = program.by_name["n1"]
    assert isinstance(first, Neuron)
    grown = replace(first, threshold=_thresholds(rng, first.shape))
    return replace(program, nodes=tuple(grown if node is first else node for node in program.nodes))


def _of_lava_dl(seed: int) -> Case | None:
    """What lava-dl's own files hold and ours do not; None for one that netx would not run."""
    rng = np.random.default_rng(seed)
    own, image = bool(rng.integers(2)), bool(rng.integers(2))
    shape = (2, 6, 5) if image else (12,)
    layers: list[Layer] = []
    if image or own or rng.integers(2):
        layers.append(InputLayer(shape=shape, neuron=any_neuron(rng, ()) if own else None))
    inputs = 12
    if image:
        layers += [_any_conv(rng, shape), FlattenLayer()]
        inputs = 90
    for place in range(2):
        layers.append(_any_dense(rng, inputs, bare=place == 1 and rng.integers(3) == 0))
        inputs = 9
    try:
        net = NetxFile(tuple(layers))
    except StlDeployError:
        return None
    return net, rng.integers(0, 200 if own else rng.choice([2, 6]), (12, 7, *net.input_shape)).astype(np.int32)


def int32(values: Any) -> Ints:
    return np.asarray(values, np.int32)


def any_neuron(rng: Rng, shape: tuple[int, ...]) -> IntegerNeuron:
    threshold = rng.integers(0, 400, shape) if rng.integers(2) else rng.integers(1, 300)
    decays = int(rng.choice([0, 128, 2048, 4096])), int(rng.choice([0, 409, 1024, 4096]))
    return IntegerNeuron(v_decay=decays[0], i_decay=decays[1], threshold=int32(threshold))


def _any_conv(rng: Rng, shape: tuple[int, ...]) -> ConvLayer:
    bias = int32(rng.integers(-40, 80, (3, 6, 5))) if rng.integers(2) else None
    weight = int32(rng.integers(-127, 128, (3, 2, 3, 3)))
    return ConvLayer(weight=weight, input_shape=shape, padding=(1, 1), bias=bias, neuron=any_neuron(rng, (3, 6, 5)))


def _any_dense(rng: Rng, inputs: int, bare: bool) -> DenseLayer:
    low, high = [(-256, 255), (-256, 0), (-255, 0), (0, 256), (-127, 128)][int(rng.integers(5))]
    weight = rng.integers(low, high, (9, inputs))
    if weight.min() < 0 < weight.max():
        weight = np.clip(weight, -256, 254)
    if weight.max() == 0:
        weight = np.maximum(weight, -128)
    weight[0, 0] = weight[0, 0] or -1
    return DenseLayer(
        weight=int32(weight),
        delay=int32(rng.integers(0, 5, weight.shape)) if rng.integers(2) else None,
        bias=int32(rng.integers(-30, 60, 9)) if rng.integers(2) else None,
        neuron=NO_NEURON if bare else any_neuron(rng, (9,)),
    )


if __name__ == "__main__":
    FILE.write_text(json.dumps(groups(), indent=1) + "\n", encoding="ascii")
    print(f"written: {FILE}")
