"""A small trained Spikformer in C: spikes and accuracy against real numbers: python -m benchmarks.attention [-o OUT]

Trains two blocks on 6,000 images of MNIST (14x14, four steps), captures the network, and runs 1,000 test images through
the graph, ONNX Runtime and the compiled C. Then only the weights are rounded, to several widths, to tell their share in
the spikes that differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy._util.files import write_text
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.datasets import Split, load_dataset
from stl_deploy.graph.program import Conv, Linear, Program
from stl_deploy.graph.run import run
from stl_deploy.pipeline.results import GraphEvaluation

STEPS, WIDTH, HEADS, TRAINED, TESTED, UPDATES = 4, 32, 4, 6000, 1000, 190
BITS = (6, 8, 10, 12, 16)


class Spike(torch.autograd.Function):
    """A comparison with 0 and the slope of an arctangent."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        """Return 1 where v is at least 0."""
        ctx.save_for_backward(v)
        return (v >= 0).float()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        """Return the surrogate gradient."""
        (v,) = ctx.saved_tensors
        return grad[0] / (1 + (3 * v) ** 2)


def spikes(currents: Tensor) -> Tensor:
    """Return the spikes [T, B, ...] of leaky neurons with hard reset."""
    v, out = torch.zeros_like(currents[0]), []
    for current in currents:
        v = v + (current - v) / 2
        out.append(Spike.apply(v - 0.5))
        v = v * (1 - out[-1].detach())
    return torch.stack(out)


class Layer(nn.Module):
    """Weights, norm, neurons: of images [T, B, C, H, W] or tokens [T, B, N, C]."""

    def __init__(self, weights: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.weights, self.norm = weights, norm

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes."""
        leading = 2 if isinstance(self.weights, nn.Conv2d) else 3
        currents: Tensor = self.norm(self.weights(x.flatten(0, leading - 1)))
        return spikes(currents.unflatten(0, x.shape[:leading]))


def convolution(inputs: int, outputs: int) -> Layer:
    """Return a layer of 3x3 kernels."""
    return Layer(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))


def dense(inputs: int, outputs: int) -> Layer:
    """Return a layer of tokens."""
    return Layer(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs))


class Block(nn.Module):
    """Spikformer's block: spiking self-attention, then two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (dense(WIDTH, WIDTH) for _ in range(4))
        self.wide, self.narrow = dense(WIDTH, 4 * WIDTH), dense(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return x and what the block adds."""
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(2, 3) for part in (self.query, self.key, self.value))
        mixed = spikes((q @ k.transpose(-2, -1) @ v * 0.25).transpose(2, 3).flatten(3))
        x = x + self.out(mixed)
        added: Tensor = self.narrow(self.wide(x))
        return x + added


class Spikformer(nn.Module):
    """Images [B, 1, 14, 14], shown at every step, to class scores [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.second = convolution(1, WIDTH // 2), convolution(WIDTH // 2, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of all steps' scores."""
        first = self.enter(x.expand(STEPS, *x.shape))
        pooled = functional.max_pool2d(first.flatten(0, 1), 2).unflatten(0, first.shape[:2])
        tokens = self.second(pooled).flatten(3).transpose(-1, -2)
        scores: Tensor = self.head(self.blocks(tokens).mean(2)).mean(0)
        return scores


def rounded(program: Program, bits: int) -> Program:
    """Return the Program with each row of weights rounded to ``bits``."""
    nodes = []
    for node in program.nodes:
        if isinstance(node, Linear | Conv):
            largest = np.abs(node.weight).reshape(len(node.weight), -1).max(axis=1)
            scale = (largest / (2 ** (bits - 1) - 1)).reshape(-1, *[1] * (node.weight.ndim - 1))
            node = replace(node, weight=(np.round(node.weight / scale) * scale).astype(np.float32))
        nodes.append(node)
    return replace(program, nodes=tuple(nodes))


def differing(program: Program, x: np.ndarray[Any, np.dtype[np.float32]]) -> Iterator[tuple[int, float]]:
    """Yield the share of spikes that differ for each width of the weights."""
    names = [node.name for node in program.spiking]
    expected = run(program, x, record=names).recorded
    for bits in BITS:
        given = run(rounded(program, bits), x, record=names).recorded
        wrong = sum(int((given[name] != expected[name]).sum()) for name in names)
        yield bits, wrong / sum(expected[name].size for name in names)


def images(split: Split, count: int) -> tuple[Tensor, Tensor]:
    """Return the first images [N, 1, 14, 14] in sixteenths, and their labels."""
    pixels = split.pixels[:count].float() / split.levels
    return torch.round(functional.avg_pool2d(pixels, 2) * 16) / 16, split.labels[:count]


def trained(x: Tensor, labels: Tensor) -> Spikformer:
    """Return the network after `UPDATES` batches of 64."""
    torch.manual_seed(0)
    model = Spikformer()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=UPDATES)
    for _ in range(UPDATES):
        picked = torch.randint(0, len(x), (64,))
        loss = functional.cross_entropy(model(x[picked]), labels[picked])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model.eval()


def page(table: GraphEvaluation, widths: Iterable[tuple[int, float]], spiking: int) -> str:
    """Return the page of the measurement."""
    size = f"{WIDTH} channels, {HEADS} heads, {STEPS} steps, {spiking:,} spiking neurons"
    lines = [
        "# Spiking attention in 8-bit integers",
        "",
        f"Two blocks of Spikformer ({size}), trained on {TRAINED:,} images of MNIST, {TESTED:,} tested.",
        "Measured by `python -m benchmarks.attention`.",
        "",
        "| run | accuracy | spikes compared | differ |",
        "|---|---|---|---|",
        f"| graph | {table.accuracy:.1%} | | |",
    ]
    for name, each in table.backends.items():
        lines.append(f"| {name} | {each.accuracy:.1%} | {each.compared:,} | {each.differing / each.compared:.2%} |")
    lines += [
        "",
        "Share of spikes that differ if the weights alone are rounded, all else in float32 (reference run, 16 images):",
        "",
        "| bits of weights | spikes that differ |",
        "|---|---|",
        *(f"| {bits} | {share:.2%} |" for bits, share in widths),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, capture, compare, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder of MNIST's files; default: download to the cache")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/measurements"))
    options = parser.parse_args()
    data = load_dataset(DatasetConfig(name="mnist", T=STEPS, data_dir=options.data_dir))
    (x, labels), (test, expected) = images(data.train, TRAINED), images(data.test, TESTED)
    net = stl.capture(trained(x, labels), x[:8], time="inside")
    print(net.proof)
    batches = [(test[at : at + 100], expected[at : at + 100]) for at in range(0, TESTED, 100)]
    table = net.evaluate(batches, backend=["onnx", "c"], steps=STEPS, input_grid=4)
    print(table)
    few = np.repeat(test[:16].numpy()[None], STEPS, axis=0)
    spiking = sum(int(np.prod(node.shape)) for node in net.program.spiking)
    write_text(options.out / "attention.md", page(table, differing(net.program, few), spiking))


if __name__ == "__main__":
    main()
