"""Convolutions and dense layers in int8 as C that calls CMSIS-NN: weights by channel, activations by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stl_deploy.exporters.c.render import literals

INPUT_SCALE = 16
Shape = tuple[int, int, int]

HEADER = """#ifndef NET_H
#define NET_H
#include <stdint.h>
enum {{ NET_INPUTS = {inputs}, NET_OUTPUTS = {outputs} }};
typedef struct net_state {{ int32_t work[{work}]; int8_t small[{small}]; int8_t large[{large}]; }} net_state;
void net_init(net_state *s);
int net_step(net_state *s, const int32_t *x, int32_t *y);
#endif
"""
SOURCE = """#include <string.h>
#include "arm_nnfunctions.h"
#include "net.h"

{tables}
void net_init(net_state *s)
{{
    (void)s;
}}

int net_step(net_state *s, const int32_t *x, int32_t *y)
{{
    const cmsis_nn_context context = {{ s->work, sizeof s->work }};

    for (int32_t i = 0; i < {inputs}; i++) {{
        s->small[{place}] = (int8_t)x[i];
    }}
{calls}
    for (int32_t i = 0; i < {outputs}; i++) {{
        y[i] = s->large[i];
    }}
    return 0;
}}
"""
CALL = """    {{
        static const {params_type} params = {params};
        static const {quant_type} quant = {quant};
        static const cmsis_nn_dims in = {taken}, filter = {filter}, bias = {{ {outs}, 1, 1, 1 }}, out = {out};

        if ({function}(&context, &params, &quant, &in, s->small, &filter, weight{i}, &bias, bias{i}, {more}&out,
                       s->large) != ARM_CMSIS_NN_SUCCESS) {{
            return -1;
        }}
    }}
"""
POOL = """    {{
        static const cmsis_nn_pool_params params = {{ {{ {side}, {side} }}, {{ 0, 0 }}, {{ -128, 127 }} }};
        static const cmsis_nn_dims in = {taken}, filter = {{ 1, {side}, {side}, 1 }}, out = {out};

        (void)arm_max_pool_s8(&context, &params, &in, s->large, &filter, &out, s->small);
    }}
"""


@dataclass(frozen=True, eq=False)
class Layer:
    """Weights ``[out, in, kh, kw]`` (1x1 kernels: dense) and bias in float64, the norm in them; pooled: side of the
    window that follows, 1 for none; last: no ReLU."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    pooled: int = 1
    last: bool = False

    @property
    def dense(self) -> bool:
        """Whether this is a dense layer."""
        return self.weight.shape[2] == 1


def layers_of(network: nn.Module, population: int) -> list[Layer]:
    """The chain of an ANN; raises SystemExit for a layer that this benchmark does not know."""
    kept: list[dict[str, Any]] = []
    for layer in network.layers.values():  # type: ignore[union-attr, operator]
        match layer:
            case nn.Conv2d() | nn.Linear():
                weight = layer.weight.detach().double().numpy()
                bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
                kept.append({"weight": weight.reshape(*weight.shape, *(1,) * (4 - weight.ndim)), "bias": bias})
            case nn.BatchNorm2d():
                gain = (layer.weight / torch.sqrt(layer.running_var + layer.eps)).detach().double().numpy()  # type: ignore[operator]
                offset = (layer.bias.detach() - layer.running_mean * torch.from_numpy(gain)).double().numpy()  # type: ignore[operator]
                kept[-1] |= {
                    "weight": kept[-1]["weight"] * gain[:, None, None, None],
                    "bias": kept[-1]["bias"] * gain + offset,
                }
            case nn.MaxPool2d():
                kept[-1]["pooled"] = int(layer.kernel_size)  # type: ignore[arg-type]
            case nn.ReLU() | nn.Identity() | nn.Dropout() | nn.Flatten():
                pass
            case _ if type(layer).__name__ == "Vote":
                for what in ("weight", "bias"):
                    shape = kept[-1][what].shape
                    kept[-1][what] = kept[-1][what].reshape(-1, population, *shape[1:]).mean(axis=1)
                kept[-1]["last"] = True
            case _:
                raise SystemExit(f"expected convolution, norm, ReLU, max pooling, dense and vote; found {layer}")
    return [Layer(**each) for each in kept]


def forward(layers: Sequence[Layer], x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Each layer's output in float64, before pooling, of images ``x`` ``[B, C, H, W]``."""
    kept, now = [], torch.from_numpy(x)
    for layer in layers:
        weight, bias = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
        if layer.dense:
            now = nn.functional.linear(now.flatten(1), weight[:, :, 0, 0], bias)
        else:
            now = nn.functional.conv2d(now, weight, bias, padding=layer.weight.shape[2] // 2)
        now = now if layer.last else now.relu()
        kept.append(now.numpy())
        now = nn.functional.max_pool2d(now, layer.pooled) if layer.pooled > 1 else now
    return kept


def _multiplier(scale: float) -> tuple[int, int]:
    """``scale`` as a 31-bit fraction and a power of two, as CMSIS-NN takes it."""
    fraction, shift = np.frexp(scale)
    return min(round(float(fraction) * 2**31), 2**31 - 1), int(shift)


@dataclass
class _Code:
    """C so far: what the next layer takes (shape, scale, offset), and the bytes of each buffer."""

    shape: Shape
    scale: float = 1 / INPUT_SCALE
    offset: int = 0
    tables: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    work: int = 1
    small: int = 0
    large: int = 0

    def table(self, ctype: str, name: str, values: NDArray[Any]) -> None:
        flat = np.ascontiguousarray(values, np.int64).reshape(-1)
        self.tables.append(f"static const {ctype} {name}[{flat.size}] = {{\n{literals(flat)}\n}};\n")

    def add(self, i: int, layer: Layer, seen: NDArray[np.float64]) -> None:
        """A layer, its ranges those of the outputs ``seen``, and the pooling after it."""
        self.small = max(self.small, int(np.prod(self.shape)))
        out_scale = float(np.abs(seen).max() / 127 if layer.last else seen.max() / 255)
        pairs = self._weights(i, layer, out_scale)
        outs, _, kernel, _ = layer.weight.shape
        offsets = f"{-self.offset}, {'0, ' if layer.dense else ''}{0 if layer.last else -128}"
        common = {"i": i, "outs": outs, "more": "" if layer.dense else "NULL, "}
        if layer.dense:
            ins = int(np.prod(self.shape))
            self.shape = (outs, 1, 1)
            kind = {"function": "arm_fully_connected_s8", "params_type": "cmsis_nn_fc_params"}
            kind |= {"quant_type": "cmsis_nn_per_tensor_quant_params", "quant": f"{{ {pairs[0][0]}, {pairs[0][1]} }}"}
            kind |= {"params": f"{{ {offsets}, {{ -128, 127 }} }}", "taken": f"{{ 1, 1, 1, {ins} }}"}
            kind |= {"filter": f"{{ {ins}, 1, 1, {outs} }}"}
        else:
            channels, edge = self.shape[0], kernel // 2
            self.work = max(self.work, -(-channels * kernel * kernel // 4) * 4)
            for name, values in zip(("multiplier", "shift"), zip(*pairs, strict=True), strict=True):
                self.table("int32_t", f"{name}{i}", np.array(values))
            kind = {"function": "arm_convolve_s8", "params_type": "cmsis_nn_conv_params"}
            kind |= {"quant_type": "cmsis_nn_per_channel_quant_params"}
            kind |= {"quant": f"{{ (int32_t *)multiplier{i}, (int32_t *)shift{i} }}", "taken": _dims(self.shape)}
            kind |= {"params": f"{{ {offsets}, {{ 1, 1 }}, {{ {edge}, {edge} }}, {{ 1, 1 }}, {{ -128, 127 }} }}"}
            kind |= {"filter": f"{{ {outs}, {kernel}, {kernel}, {channels} }}"}
            self.shape = (outs, *self.shape[1:])
        self.calls.append(CALL.format(out=_dims(self.shape), **common, **kind))
        self.scale, self.offset = out_scale, 0 if layer.last else -128
        self.large = max(self.large, int(np.prod(self.shape)))
        self._pool(layer)

    def _weights(self, i: int, layer: Layer, out_scale: float) -> list[tuple[int, int]]:
        """Write the tables of weights and biases; returns multiplier and shift of each output."""
        weight = layer.weight
        if layer.dense and self.shape[1] > 1:  # from (C, H, W) to CMSIS-NN's (H, W, C)
            weight = weight.reshape(len(weight), *self.shape).transpose(0, 2, 3, 1).reshape(len(weight), -1, 1, 1)
        peaks = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), 1e-12) / 127
        if layer.dense:
            peaks = np.full(len(weight), peaks.max())
        whole = np.rint(weight / peaks[:, None, None, None]).transpose(0, 2, 3, 1)
        self.table("int8_t", f"weight{i}", whole)
        self.table("int32_t", f"bias{i}", np.rint(layer.bias / (self.scale * peaks)))
        return [_multiplier(self.scale * peak / out_scale) for peak in peaks]

    def _pool(self, layer: Layer) -> None:
        side = layer.pooled
        if side > 1:
            taken = _dims(self.shape)
            self.shape = (self.shape[0], self.shape[1] // side, self.shape[2] // side)
            self.calls.append(POOL.format(side=side, taken=taken, out=_dims(self.shape)))
        elif not layer.last:
            self.calls.append(f"    memcpy(s->small, s->large, {int(np.prod(self.shape))});\n")


def _dims(shape: Shape) -> str:
    return f"{{ 1, {shape[1]}, {shape[2]}, {shape[0]} }}"


def generate(layers: Sequence[Layer], shape: Shape, x: NDArray[np.float64]) -> dict[str, str]:
    """net.h and net.c with the interface of stl-deploy's; activations' ranges are those on ``x`` ``[B, C, H, W]``."""
    code = _Code(shape)
    for i, (layer, seen) in enumerate(zip(layers, forward(layers, x), strict=True)):
        code.add(i, layer, seen)
    sizes = {"inputs": int(np.prod(shape)), "outputs": len(layers[-1].weight)}
    positions = shape[1] * shape[2]
    place = "i" if shape[0] == 1 else f"(i % {positions}) * {shape[0]} + i / {positions}"
    return {
        "net.h": HEADER.format(work=code.work, small=code.small, large=code.large, **sizes),
        "net.c": SOURCE.format(tables="\n".join(code.tables), calls="".join(code.calls), place=place, **sizes),
    }
