"""Small Programs for the ONNX tests."""

import numpy as np

from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.graph.program import Conv, Input, Linear, Neuron, Operand, Output, Pool, Program, Reshape

F = np.float32


def chain(shape, *makers, metadata=None):
    """A Program input -> makers... -> output; a maker is called with (shape, sources)."""
    nodes = [Input(name="input", shape=shape, operands=())]
    for make in makers:
        nodes.append(make(nodes[-1].shape, (Operand(nodes[-1].name),)))
    nodes.append(Output(name="output", shape=nodes[-1].shape, operands=(Operand(nodes[-1].name),)))
    return Program(tuple(nodes), 1e-4, metadata or {})


def neuron(name="lif", **fields):
    fields = {"decay": 0.5, "threshold": 1.0} | fields
    arrays = {k: F(v) if isinstance(v, float) else v for k, v in fields.items()}
    return lambda shape, sources: Neuron(name=name, shape=shape, operands=sources, **arrays)


def linear(weight, bias=None, name="fc"):
    weight = np.array(weight, F)
    return lambda shape, sources: Linear(
        name=name,
        shape=(*shape[:-1], len(weight)),
        operands=sources,
        weight=weight,
        bias=None if bias is None else np.array(bias, F),
        input_shape=shape,
    )


def conv(weight, name="conv"):
    """3x3, padded to keep the size."""
    return lambda shape, sources: Conv(
        name=name,
        shape=(len(weight), *shape[1:]),
        operands=sources,
        weight=np.array(weight, F),
        bias=None,
        stride=(1, 1),
        padding=((1, 1), (1, 1)),
        dilation=(1, 1),
        groups=1,
        input_shape=shape,
    )


def pool(divisor=1, kernel=(2, 2), name="pool"):
    return lambda shape, sources: Pool(
        name=name,
        shape=(shape[0], shape[1] // kernel[0], shape[2] // kernel[1]),
        operands=sources,
        kernel=kernel,
        stride=kernel,
        padding=((0, 0), (0, 0)),
        divisor=divisor,
        input_shape=shape,
    )


def flatten(name="flat"):
    return lambda shape, sources: Reshape(name=name, shape=(int(np.prod(shape)),), operands=sources, input_shape=shape)


def digits(seed=0):
    """Conv, LIF, pool, Threshold, flatten, Linear, LIF on an exact grid, with thresholds of their own."""
    rng = np.random.default_rng(seed)
    return chain(
        (1, 6, 6),
        conv(rng.integers(-2, 3, (4, 1, 3, 3)) / 2),
        neuron("lif1", threshold=rng.uniform(0.5, 1.5, (4, 1, 1)).astype(F), decay=0.7),
        pool(),
        neuron("max", decay=None, threshold=0.5),
        flatten(),
        linear(rng.integers(-2, 3, (3, 36)) / 4, bias=[0.25, 0, -0.25]),
        neuron("lif2", threshold=rng.uniform(0.5, 1.5, 3).astype(F), decay=0.9, compare="ge"),
        metadata={"dialect": {"dt": 1e-4, "compare": "ge"}, "input": {"coding": "spikes"}},
    )


def write(program, folder, form="sequence", **options):
    """Export and open."""
    path = folder / f"{form}.onnx"
    export_onnx(program, path, form=form, **options)
    return OnnxModel.load(path, threads=1)


def spikes(*shape, seed=1, rate=0.4):
    return np.random.default_rng(seed).random(shape) < rate
