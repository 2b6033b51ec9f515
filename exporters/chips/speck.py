"""Check a network against SynSense Speck (DYNAP-CNN): its nine cores, their operations and memory.

A core is a convolution (or a linear layer, as one over the whole picture), integrate-and-fire neurons, and a sum pool.
Source: Sinabs's pages on Speck, "Overview" and "Available network architecture", and `validate_memory_speck` of its
code (the maker's); the driver was not run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from stl_deploy._util.remedies import remedy
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import (
    Conv,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pool,
    Program,
    Reshape,
    is_spike_max_pool,
)
from stl_deploy.passes import thresholds_go_into_weights

CORES = (*[(16, 64)] * 3, *[(32, 32)] * 2, *[(64, 16)] * 2, *[(16, 16)] * 2)
"""Kernel and neuron memory of each core, in 1,024 words."""
_WORDS = 1024
_SOURCE = "Sinabs's pages on Speck, the maker's"


def check(program: Program) -> Iterator[Finding]:
    """Return everything that keeps a network off Speck, node by node, and its approximations on the chip."""
    yield from _input(program)
    for node in program.nodes:
        yield from _RULES.get(type(node), _other)(program, node)
    yield from _room(program)


def _error(slug: str, node: str | None, reason: str, remedy: str) -> Finding:
    return Finding(slug, "error", node, f"{reason} ({_SOURCE})", remedy)


def _input(program: Program) -> Iterator[Finding]:
    declared = program.metadata.get("input", {})
    coding = declared.get("coding") if isinstance(declared, dict) else None
    for node in program.inputs:
        if coding == "analog":
            reason = "real numbers enter; Speck takes events"
            yield _error("analog-input", node.name, reason, "encode the input as events, 0 or 1 (or their counts)")
        if len(node.shape) == 3 and max(node.shape[1:]) > 128:
            reason = f"pictures of {node.shape[1]}x{node.shape[2]}; Speck takes up to 128x128"
            yield _error("input-too-large", node.name, reason, "pool the events before the network")


def _neuron(program: Program, node: Node) -> Iterator[Finding]:
    assert isinstance(node, Neuron)
    if is_spike_max_pool(program, node):
        yield _error("no-max-pool", node.name, "max pooling of spikes; Speck's cores sum", "use sum pooling")
        return
    if not node.spiking:
        yield _error("no-threshold", node.name, "it puts out its potential", "end in spiking neurons")
        return
    if node.synapse is not None or node.decay is None or bool(np.any(node.decay != 1)):
        reason = "Speck's neurons do not leak" if node.synapse is None else "Speck's neurons do not filter their input"
        yield _error("no-leak", node.name, reason, "train IF neurons (NIR IF: the potential keeps all of itself)")
    if node.adaptation is not None:
        yield _error(
            "adapting-threshold", node.name, "its threshold adapts; Speck's are fixed", "use a fixed threshold"
        )
    if any(start is not None and start.any() for start in (node.v_start, node.i_start)):
        yield _error(
            "v-start", node.name, "its state does not start at 0; Speck's does", "train neurons that start at 0"
        )
    at_once = ("value", "subtract", "subtract_delayed")  # the last two are equal without a leak
    if node.reset not in at_once or (node.v_reset is not None and node.v_reset.any()):
        yield _error(
            "reset", node.name, "Speck resets to 0 or by subtraction, at once", "train with one of these resets"
        )
    if node.reset in at_once[1:]:
        reason = "Sinabs' reader of NIR resets to 0; Speck subtracts, too"
        instead = "build it in Sinabs with MembraneSubtract, or train with a reset to 0"
        yield Finding("reader-resets", "warning", node.name, reason, instead)
    if node.multi_spike and node.rounding != "down":
        reason = "it rounds its number of spikes to the nearest; Speck's neurons fire at their threshold"
        yield _error("rounding", node.name, reason, "round down: torch.floor(v / θ)")
    if node.threshold is not None and bool(np.ptp(node.threshold) > 0):
        how = remedy(
            cli="stl-deploy fold SOURCE --thresholds weights -o FOLDED.nir", python="net.fold(thresholds='weights')"
        )
        reason = "Speck has one threshold for each core; these differ"
        instead = f"fold them into the weights first: {how}"
        if not thresholds_go_into_weights(program, node.name):
            instead = "train one per layer, as no weights can take these"
        yield _error("one-threshold-a-core", node.name, reason, instead)
    for source in node.operands:
        before = program.by_name[source.node]
        if source.delay:
            yield _error("recurrent", node.name, "it closes a loop", "remove the recurrence")
        elif not isinstance(before, Conv | Linear):
            reason = f"'{before.name}' reaches it without weights; a core is weights and neurons"
            yield _error("no-weights", node.name, reason, "put a layer of weights before it")
    yield Finding(
        "quantisation",
        "warning",
        node.name,
        "weights become 8-bit and potentials 16-bit integers",
        "measure on the chip",
    )


def _weights(program: Program, node: Node) -> Iterator[Finding]:
    assert isinstance(node, Conv | Linear)
    for reader in program.readers[node.name]:
        if not isinstance(reader, Neuron):
            reason = f"its sums go to '{reader.name}' without neurons"
            yield _error("no-neuron", node.name, reason, "put spiking neurons right behind it")
    if node.bias is not None and node.bias.any():
        reason = "its bias acts on the chip's clock, not once a step"
        yield Finding("bias-on-a-clock", "warning", node.name, f"{reason} ({_SOURCE})", "train without a bias")
    if isinstance(node, Linear):
        return
    if len(node.input_shape) != 3:
        yield _error("one-axis", node.name, "a convolution over one axis", "give the input a height of 1")
        return
    for slug, wrong, reason, how in (
        ("kernel-too-large", max(node.weight.shape[2:]) > 16, "kernels of at most 16x16", "use smaller kernels"),
        ("stride", any(s not in (1, 2, 4, 8) for s in node.stride), "strides of 1, 2, 4 or 8", "use one of these"),
        ("padding", max(max(pair) for pair in node.padding) > 7, "paddings of 0 to 7", "pad less"),
        ("dilation", any(d != 1 for d in node.dilation), "kernels without dilation", "train without it"),
        ("groups", node.groups != 1, "convolutions of one group", "train without groups"),
        ("output-too-large", max(node.shape[1:]) > 64, "output pictures of at most 64x64", "use a larger stride"),
        ("too-many-channels", max(node.shape[0], node.input_shape[0]) > 1024, "at most 1,024 channels", "use fewer"),
    ):
        if wrong:
            yield _error(slug, node.name, f"Speck has {reason}", how)


def _pool(program: Program, node: Node) -> Iterator[Finding]:
    assert isinstance(node, Pool)
    square = len({*node.kernel, *node.stride}) == 1 and node.kernel[0] in (1, 2, 4) and not any(map(any, node.padding))
    if not square:
        reason = f"a window of {'x'.join(map(str, node.kernel))}; Speck sums 1x1, 2x2 or 4x4 side by side"
        yield _error("pool-window", node.name, reason, "use such a window")
    if node.divisor != 1:
        how = remedy(cli="stl-deploy fold SOURCE --merge-pools -o FOLDED.nir", python="net.fold(merge_pools=True)")
        yield _error("average-pool", node.name, "an average; Speck sums events", f"sum, or put it into weights: {how}")
    for source in node.operands:
        if not isinstance(program.by_name[source.node], Neuron | Input):
            yield _error(
                "pool-of-currents", node.name, "it pools currents; Speck pools spikes", "pool behind the neurons"
            )


def _plain(program: Program, node: Node) -> Iterator[Finding]:
    if isinstance(node, Output):
        for source in node.operands:
            if not isinstance(program.by_name[source.node], Neuron | Pool | Reshape):
                reason = f"'{source.node}' puts out sums; Speck puts out spikes"
                yield _error("no-spikes-out", node.name, reason, "end in spiking neurons")
    if not isinstance(node, Output) and len(_cores_behind(program, node)) > 2:
        reason = f"{len(_cores_behind(program, node))} layers read it; a core sends to two"
        yield _error("fan-out", node.name, reason, "let at most two layers read it")


def _other(program: Program, node: Node) -> Iterator[Finding]:
    yield _error("kind", node.name, f"Speck has no {type(node).__name__}", "remove it, or fold it into weights")


_RULES: Mapping[type[Node], Callable[[Program, Node], Iterator[Finding]]] = {
    Neuron: _neuron, Conv: _weights, Linear: _weights, Pool: _pool, Input: _plain, Output: _plain, Reshape: _plain,
}  # fmt: skip


def _cores_behind(program: Program, node: Node) -> set[str]:
    """Return the layers of weights that read a node, also through pools and reshapes."""
    layers: set[str] = set()
    for reader in program.readers[node.name]:
        layers |= _cores_behind(program, reader) if isinstance(reader, Pool | Reshape) else {reader.name}
    return layers


def _room(program: Program) -> Iterator[Finding]:
    """Yield errors for more layers than cores, and for layers that no core, or no set of cores, has memory for."""
    wanted = {node.name: _words(node, program) for node in program.nodes if isinstance(node, Conv | Linear)}
    if len(wanted) > len(CORES):
        reason = f"{len(wanted)} layers of weights; Speck has {len(CORES)} cores"
        yield _error("too-many-layers", None, reason, "use fewer layers")
    fitting = {name: [i for i, core in enumerate(CORES) if _holds(core, words)] for name, words in wanted.items()}
    for name, (kernel, neurons) in wanted.items():
        if not fitting[name]:
            reason = (
                f"{kernel:,} words of kernels and {neurons:,} of neurons; the cores have 16 and 64, 32 and 32, or 64 "
                "and 16 times 1,024"
            )
            yield _error("layer-too-large", name, reason, "use fewer channels or smaller pictures")
    if len(wanted) <= len(CORES) and all(fitting.values()) and not _assigned(fitting):
        yield _error(
            "no-room", None, "each layer fits a core, but not all of them at once", "make large layers smaller"
        )


def _words(node: Conv | Linear, program: Program) -> tuple[int, int]:
    """Return words of kernel and neuron memory: sizes are rounded up to powers of two, as the chip addresses them."""
    if isinstance(node, Conv):
        inputs, window, picture = node.weight.shape[1], math.prod(node.weight.shape[2:]), node.shape[1:]
    else:
        inputs, window, picture = _before_flatten(node, program)
    kernel = inputs * _power(window) * _power(node.weight.shape[0])
    return kernel, node.weight.shape[0] * math.prod(map(_power, picture))


def _before_flatten(node: Linear, program: Program) -> tuple[int, int, tuple[int, ...]]:
    """Return channels and pixels of a linear layer's input, as one kernel over the whole picture."""
    before = program.by_name[node.operands[0].node]
    shape = before.input_shape if isinstance(before, Reshape) else before.shape
    return (shape[0], math.prod(shape[1:]), ()) if len(shape) == 3 else (math.prod(shape), 1, ())


def _power(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def _holds(core: tuple[int, int], words: tuple[int, int]) -> bool:
    return all(word <= limit * _WORDS for word, limit in zip(words, core, strict=True))


def _assigned(fitting: Mapping[str, list[int]]) -> bool:
    """Return whether every layer gets a core of its own (augmenting paths)."""
    holder: dict[int, str] = {}

    def place(name: str, tried: set[int]) -> bool:
        for core in fitting[name]:
            if core not in tried:
                tried.add(core)
                if core not in holder or place(holder[core], tried):
                    holder[core] = name
                    return True
        return False

    return all(place(name, set()) for name in fitting)
