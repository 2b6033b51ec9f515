"""Small Programs, built by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from stl_deploy.graph.program import Conv, Input, Linear, Neuron, Node, Operand, Output, Pool, Program, Reshape, Shape

F = np.float32


class Builder:
    """A chain, node by node; each reads the one before it."""

    def __init__(self, shape: Shape) -> None:
        self.nodes: list[Node] = [Input(name="in", shape=shape, operands=())]

    def _common(self, name: str, shape: Shape) -> dict[str, Any]:
        return {"name": name, "shape": shape, "operands": (Operand(self.nodes[-1].name),)}

    @property
    def shape(self) -> Shape:
        return self.nodes[-1].shape

    def linear(self, name: str, weight: Any, bias: Any = None) -> Builder:
        weight = np.asarray(weight, F)
        common = self._common(name, (*self.shape[:-1], weight.shape[0]))
        bias = None if bias is None else np.asarray(bias, F)
        self.nodes.append(Linear(weight=weight, bias=bias, input_shape=self.shape, **common))
        return self

    def conv(
        self, name: str, weight: Any, bias: Any = None, padding: tuple[Any, Any] = ((0, 0), (0, 0)), **kwargs: Any
    ) -> Builder:
        weight = np.asarray(weight, F)
        fields: dict[str, Any] = {"stride": (1, 1), "dilation": (1, 1), "groups": 1} | kwargs
        spatial = tuple(
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, k, s, d, p in zip(
                self.shape[1:], weight.shape[2:], fields["stride"], fields["dilation"], padding, strict=True
            )
        )
        common = self._common(name, (weight.shape[0], *spatial))
        bias = None if bias is None else np.asarray(bias, F)
        self.nodes.append(Conv(weight=weight, bias=bias, padding=padding, input_shape=self.shape, **fields, **common))
        return self

    def lif(self, name: str, theta: Any, beta: float | None = 0.5, **kwargs: Any) -> Builder:
        below = np.nextafter(np.asarray(theta, F), F(-np.inf))
        decay = None if beta is None else np.asarray(beta, F)
        self.nodes.append(Neuron(decay=decay, threshold=below, **kwargs, **self._common(name, self.shape)))
        return self

    def sum_pool(self, name: str, size: int = 2, divisor: int = 1, padding: Any = ((0, 0), (0, 0))) -> Builder:
        spatial = tuple((n + sum(p) - size) // size + 1 for n, p in zip(self.shape[1:], padding, strict=True))
        common = self._common(name, (self.shape[0], *spatial))
        self.nodes.append(
            Pool(
                kernel=(size, size),
                stride=(size, size),
                padding=padding,
                divisor=divisor,
                input_shape=self.shape,
                **common,
            )
        )
        return self

    def max_pool(self, name: str, size: int = 2) -> Builder:
        return self.sum_pool(f"{name}.sum", size).lif(name, 1.0, beta=None)

    def reshape(self, name: str, shape: Shape) -> Builder:
        self.nodes.append(Reshape(input_shape=self.shape, **self._common(name, shape)))
        return self

    def flatten(self, name: str) -> Builder:
        return self.reshape(name, (int(np.prod(self.shape)),))

    def program(self) -> Program:
        output = Output(**self._common("out", self.shape))
        return Program(nodes=(*self.nodes, output), dt=1e-4)


def conv_net(rng: np.random.Generator, theta: str = "channel") -> Program:
    """Conv-LIF-pool-flatten-Linear-LIF-voting on (1, 6, 6), thresholds by channel or pixel."""
    size = (4, 1, 1) if theta == "channel" else (4, 6, 6)
    build = Builder((1, 6, 6)).conv("conv", rng.normal(0, 0.5, (4, 1, 3, 3)), rng.normal(0, 0.1, 4), ((1, 1), (1, 1)))
    build.lif("lif1", np.broadcast_to(rng.uniform(0.5, 1.5, size), (4, 6, 6)).copy()).max_pool("pool").flatten("flat")
    build.linear("fc", rng.normal(0, 0.4, (10, 36)), rng.normal(0, 0.1, 10)).lif("lif2", rng.uniform(0.5, 1.5, 10))
    return build.linear("vote", np.kron(np.eye(2), np.full((1, 5), 0.2))).program()


def events(rng: np.random.Generator, *shape: int, top: int = 1) -> Any:
    return (rng.integers(1, top + 1, shape) * (rng.random(shape) < 0.4)).astype(F) / top
