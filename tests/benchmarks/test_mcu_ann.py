"""Int8 ANNs as C: quantised layers compute what the float layers do, to rounding."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.mcu.int8 import Layer, forward, generate, layers_of
from stl_deploy.exporters.c.compiler import find_compiler, why_none

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_compiler() is None, reason=why_none())]

KERNELS = r"""
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef enum { ARM_CMSIS_NN_SUCCESS = 0 } arm_cmsis_nn_status;
typedef struct { int32_t w, h; } tile;
typedef struct { void *buf; int32_t size; } cmsis_nn_context;
typedef struct { int32_t n, h, w, c; } cmsis_nn_dims;
typedef struct { int32_t *multiplier, *shift; } cmsis_nn_per_channel_quant_params;
typedef struct { int32_t multiplier, shift; } cmsis_nn_per_tensor_quant_params;
typedef struct { int32_t min, max; } act;
typedef struct {
    int32_t input_offset, output_offset; tile stride, padding, dilation; act activation;
} cmsis_nn_conv_params;
typedef struct { tile stride, padding; act activation; } cmsis_nn_pool_params;
typedef struct { int32_t input_offset, filter_offset, output_offset; act activation; } cmsis_nn_fc_params;

static int8_t scaled(int64_t sum, int32_t multiplier, int32_t shift, int32_t offset)
{
    const double power = shift < 0 ? 1.0 / (1 << -shift) : (double)(1 << shift);
    const double value = (double)sum * multiplier / 2147483648.0 * power;
    const int64_t whole = (int64_t)(value < 0 ? value - 0.5 : value + 0.5) + offset;
    return (int8_t)(whole < -128 ? -128 : whole > 127 ? 127 : whole);
}

static int arm_convolve_s8(const cmsis_nn_context *c, const cmsis_nn_conv_params *p,
    const cmsis_nn_per_channel_quant_params *q, const cmsis_nn_dims *in, const int8_t *x, const cmsis_nn_dims *f,
    const int8_t *w, const cmsis_nn_dims *bd, const int32_t *b, const cmsis_nn_dims *u, const cmsis_nn_dims *out,
    int8_t *y)
{
    (void)bd; (void)u;
    if (c->size < 4 * in->c * f->h * f->w) return -1;
    for (int i = 0; i < out->h; i++) for (int j = 0; j < out->w; j++) for (int o = 0; o < out->c; o++) {
        int64_t sum = b[o];
        for (int k = 0; k < f->h; k++) for (int l = 0; l < f->w; l++) for (int ch = 0; ch < in->c; ch++) {
            const int r = i + k - p->padding.h, s = j + l - p->padding.w;
            if (r >= 0 && r < in->h && s >= 0 && s < in->w)
                sum += (x[(r * in->w + s) * in->c + ch] + p->input_offset)
                    * w[((o * f->h + k) * f->w + l) * in->c + ch];
        }
        y[(i * out->w + j) * out->c + o] = scaled(sum, q->multiplier[o], q->shift[o], p->output_offset);
    }
    return 0;
}

static int arm_max_pool_s8(const cmsis_nn_context *c, const cmsis_nn_pool_params *p, const cmsis_nn_dims *in,
    const int8_t *x, const cmsis_nn_dims *f, const cmsis_nn_dims *out, int8_t *y)
{
    (void)c;
    for (int i = 0; i < out->h; i++) for (int j = 0; j < out->w; j++) for (int o = 0; o < out->c; o++) {
        int most = -128;
        for (int k = 0; k < f->h; k++) for (int l = 0; l < f->w; l++) {
            const int v = x[((i * p->stride.h + k) * in->w + j * p->stride.w + l) * in->c + o];
            most = v > most ? v : most;
        }
        y[(i * out->w + j) * out->c + o] = (int8_t)most;
    }
    return 0;
}

static int arm_fully_connected_s8(const cmsis_nn_context *c, const cmsis_nn_fc_params *p,
    const cmsis_nn_per_tensor_quant_params *q, const cmsis_nn_dims *in, const int8_t *x, const cmsis_nn_dims *f,
    const int8_t *w, const cmsis_nn_dims *bd, const int32_t *b, const cmsis_nn_dims *out, int8_t *y)
{
    (void)c; (void)in; (void)bd;
    for (int o = 0; o < out->c; o++) {
        int64_t sum = b[o];
        for (int i = 0; i < f->n; i++) sum += (x[i] + p->input_offset) * w[o * f->n + i];
        y[o] = scaled(sum, q->multiplier, q->shift, p->output_offset);
    }
    return 0;
}
"""
MAIN = r"""
#include <stdio.h>
#include "net.h"
int main(void)
{
    static net_state state;
    int32_t x[NET_INPUTS], y[NET_OUTPUTS];
    while (fread(x, sizeof x, 1, stdin) == 1) {
        if (net_step(&state, x, y) != 0) return 1;
        fwrite(y, sizeof y, 1, stdout);
    }
    return 0;
}
"""


def test_the_generated_network_computes_what_the_layers_do(tmp_path: Path) -> None:
    """CMSIS-NN's functions are stood in for by their definitions, so that layouts, scales and offsets are checked."""
    rng = np.random.default_rng(0)
    layers = [
        Layer(rng.normal(size=(8, 2, 3, 3)) / 4, rng.normal(size=8) / 4, pooled=2),
        Layer(rng.normal(size=(6, 8, 3, 3)) / 8, rng.normal(size=6) / 4),
        Layer(rng.normal(size=(12, 6 * 9, 1, 1)) / 8, rng.normal(size=12) / 4),
        Layer(rng.normal(size=(5, 12, 1, 1)) / 3, rng.normal(size=5) / 4, last=True),
    ]
    whole = rng.integers(0, 17, (40, 2, 6, 6))
    for name, text in generate(layers, (2, 6, 6), whole / 16).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "arm_nnfunctions.h").write_text(KERNELS)
    (tmp_path / "main.c").write_text(MAIN)
    command = [str(find_compiler()), "-O1", "-fsanitize=address,undefined", "-w", "net.c", "main.c", "-o", "run"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([str(tmp_path / "run")], input=whole.astype("<i4").tobytes(), capture_output=True, check=True)
    found = np.frombuffer(done.stdout, "<i4").reshape(40, 5)
    wanted = forward(layers, whole / 16)[-1]
    step = np.abs(wanted).max() / 127
    assert np.abs(found * step - wanted).max() < 6 * step
    assert np.corrcoef(found.reshape(-1), wanted.reshape(-1))[0, 1] > 0.999


def test_norms_and_the_vote_are_folded() -> None:
    import torch
    from torch import nn

    class Vote(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), -1, 2).mean(-1)

    torch.manual_seed(0)
    chain = [
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 8),
    ]
    network = nn.Module()
    network.layers = nn.ModuleDict({str(i): layer for i, layer in enumerate([*chain, Vote()])})
    chain[1].running_mean.uniform_(-1, 1)
    chain[1].running_var.uniform_(0.5, 2)
    network.eval()
    x = torch.rand(4, 1, 4, 4)
    wanted = x
    for layer in network.layers.values():
        wanted = layer(wanted)
    found = forward(layers_of(network, 2), x.double().numpy())[-1]
    assert np.allclose(found, wanted.detach().numpy(), atol=1e-5)


def test_a_layer_that_is_not_known_ends_with_a_sentence() -> None:
    from torch import nn

    network = nn.Module()
    network.layers = nn.ModuleDict({"a": nn.Sigmoid()})
    with pytest.raises(SystemExit, match="found Sigmoid"):
        layers_of(network, 1)
