"""The network: layers in order, each reading an earlier one, with names that become the nodes of the graph.

Arrays are ``[T, B, *shape]``. Synapses, norms and pools fold time into the batch, ``[T·B, *shape]``; neurons scan time.
To traverse a network: ``network.layers`` (name -> module, in order), ``network.shapes`` (name -> output shape of one
sample at one step), ``network.sources`` (name -> the layers it reads, `INPUT` for the network's input; only a `Sum`
reads several), ``network.input_shape`` and ``network.classes``. Modules are torch's `Conv2d`, `Linear`, `BatchNorm1d`,
`BatchNorm2d`, `MaxPool2d`, `AvgPool2d`, `Dropout`, `Flatten`, `ReLU`, and ours: `Sum`, `LIF` (``threshold``,
``decay``), `LI` (``decay``), `SumPool2d`, `StepNorm1d` and `StepNorm2d` (each a BatchNorm), and `Vote`
(``population``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stl_deploy.config.options import LearningMode
from stl_deploy.config.schema import BuiltSpec, Decision, LiSpec, ResidualSpec, RunConfig, VoteSpec
from stl_deploy.graph.program import InputCoding, Program
from stl_deploy.graph.readout import Readout
from stl_deploy.nn import cuda, fused
from stl_deploy.nn.build import Branches, Build, build_layer
from stl_deploy.nn.layered import Layered, Shape
from stl_deploy.nn.layers import SumPool2d, require_sequence
from stl_deploy.nn.neuron import LIF
from stl_deploy.nn.schedule import INPUT as INPUT
from stl_deploy.nn.schedule import layerwise
from stl_deploy.nn.to_program import to_program

Observer = Callable[[str, Tensor], None]
"""Called with a layer's name and its output ``[T, B, *shape]``."""


class Network(Layered):
    """A spiking network, ``[T, B, *input_shape]`` -> votes (or the readout's potentials) ``[T, B, classes]``.

    Built from ``config.network``, ``config.neuron`` and ``config.train.mode``; weights are drawn from torch's global
    generator. Layers are named by kind and count: conv1, norm1, lif1, pool1, ..., linear1, vote. In mode ``ann`` every
    LIF is a ReLU of the same name except the last: the readout is linear, as in any classifier (with a ReLU, whole
    classes die in training and the baseline would be unfair). The mode decides what learns:

    - ``stl``, ``ann``: everything;
    - ``sl``: everything but thresholds;
    - ``tl``: thresholds only. Weights, biases, decays and batch norm's scale and shift stay as drawn; batch norm's
      running statistics still follow the data.

    Raises:
        ConfigError: If layers do not fit together; names the layer's index and the shapes.
    """

    def __init__(self, config: RunConfig, input_shape: Shape, classes: int) -> None:
        super().__init__(input_shape, config.train.mode)
        self.classes = classes
        build = Build(config.neuron, self.mode, classes, len(config.network), input_shape)
        counts: dict[str, int] = {}
        source = INPUT
        for place, spec in config.layers:
            source = self._add(build, place, spec, source, counts)
        build.finish()
        last = config.network[-1]
        self.decision: Decision = "mean"
        if isinstance(last, LiSpec) or (isinstance(last, VoteSpec) and self.mode != "ann"):
            self.decision = last.decision
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(_learns(self.mode, name))

    def _add(self, build: Build, place: str, spec: BuiltSpec, source: str, counts: dict[str, int]) -> str:
        """Build one layer, or a block's branches and their sum, behind ``source``; returns its name."""
        sources: tuple[str, ...] = (source,)
        if isinstance(spec, ResidualSpec):
            ends, branches = [], Branches(build, place)
            for key, branch in (("layers", spec.layers), ("shortcut", spec.shortcut)):
                branches.enter()
                end = source
                for index, inner in enumerate(branch):
                    end = self._add(build, f"{place}.{key}.{index}", inner, end, counts)
                branches.leave(branch)
                ends.append(end)
            sources = tuple(ends)
        module = build_layer(build, place, spec)
        name = _name(spec, counts)
        self.layers[name], self.shapes[name], self.sources[name] = module, build.shape, sources
        return name

    def forward(self, x: Tensor, observe: Observer | None = None, *, every_layer: bool = False) -> Tensor:
        """Return votes ``[T, B, classes]`` of a sequence ``[T, B, *input_shape]``.

        observe: sees the output of every layer, but of norms, and of convolutions of the input, that run as one with
        their LIF (see `stl_deploy.nn.fused` and `stl_deploy.nn.cuda`); with ``every_layer``, or where a layer has
        forward hooks of torch's, of all.
        """
        require_sequence(x, self.input_shape)
        steps = len(x)
        stages = layerwise(self.layers, self.sources)
        if not every_layer and not self._hooked and fused.ready(x):
            stages = fused.stages(self.layers, self.sources, steps, pools=observe is None)
            x = x[:1] if x.stride(0) == 0 else x
        elif not every_layer and not self._hooked and cuda.ready(x):
            from stl_deploy.nn.cuda import plan  # loads Triton

            stages = plan.stages(self.layers, self.sources)
        last_reader = {source: stage.name for stage in stages for source in stage.reads}
        values = {INPUT: x}
        for stage in stages:
            arrived = [values[source] for source in stage.reads]
            for source in set(stage.reads):
                if last_reader[source] == stage.name:
                    del values[source]
            values[stage.name] = x = stage.run(*arrived)
            del arrived
            if observe is not None:
                observe(stage.name, x.expand(steps, *x.shape[1:]))
        return x

    @property
    def _hooked(self) -> bool:
        return any(layer._forward_hooks or layer._forward_pre_hooks for layer in self.layers.values())

    def scores(self, outputs: Tensor) -> Tensor:
        """Return the loss's input: outputs ``[T, B, classes]`` as their mean over time, or maximum."""
        return outputs.amax(0) if self.decision == "max" else outputs.mean(0)

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the class ``[B]`` of each sample by the greatest score, or by the first output above 0."""
        if self.decision != "first":
            return self.scores(outputs).argmax(1)
        return torch.from_numpy(Readout("first").decide(outputs.detach().cpu().float().numpy())).to(outputs.device)

    def record(self, x: Tensor, *, every_layer: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Return votes, and the output of every LIF (in mode ``ann`` every ReLU) and pool by name, ``[T, B, *shape]``.

        every_layer: as for `forward`.
        """
        recorded: dict[str, Tensor] = {}
        pools = nn.MaxPool2d | nn.AvgPool2d | SumPool2d
        kept = {*self.activations, *(name for name, layer in self.layers.items() if isinstance(layer, pools))}

        def keep(name: str, output: Tensor) -> None:
            if name in kept:
                recorded[name] = output

        return self(x, keep, every_layer=every_layer), recorded

    def program(self, *, coding: InputCoding, fraction_bits: int = 0, bound: float = 1.0) -> Program:
        """Return the network in evaluation mode as a Program, unfolded and unrounded.

        coding, fraction_bits, bound: what the input will be: its kind, multiples of 2^-fraction_bits, and its largest
        magnitude. Raises InputError in mode ``ann``, for a norm without running statistics or weights before it, for a
        value that no training gives, thresholds <= 0 (naming the neurons), and two kinds of reset.
        """
        return to_program(self, coding, fraction_bits, bound)

    @property
    def activations(self) -> tuple[str, ...]:
        """Return names of the LIF layers, or of the ReLUs that replace them (not the linear readout)."""
        return tuple(name for name, layer in self.layers.items() if isinstance(layer, LIF | nn.ReLU))

    @torch.no_grad()
    def thresholds(self) -> dict[str, Tensor]:
        """Return each LIF's distinct effective thresholds (see `LIF.threshold`), on the CPU."""
        return {name: lif.threshold.detach().cpu().clone() for name, lif in self.lifs}


def _learns(mode: LearningMode, parameter: str) -> bool:
    is_threshold = parameter.endswith("threshold_parameter")
    return {"sl": not is_threshold, "tl": is_threshold}.get(mode, True)


def _name(spec: BuiltSpec, counts: dict[str, int]) -> str:
    if spec.kind in ("vote", "li"):
        return spec.kind
    counts[spec.kind] = counts.get(spec.kind, 0) + 1
    return f"{spec.kind}{counts[spec.kind]}"
