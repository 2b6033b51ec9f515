"""The configuration of a run: network, data, training, folding. Unknown keys are errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stl_deploy.config.options import DEVICES, LearningMode

MAX_LAYERS = 1000
"""Layers that a configuration, or one branch of a block, may have."""

MatmulPrecision = Literal["highest", "high", "medium"]
MatmulChoice = Literal["auto", "highest", "high", "medium"]
Precision = Literal["float32", "bfloat16"]
Granularity = Literal["neuron", "channel", "layer"]
Parametrisation = Literal["positive", "raw"]
Reset = Literal["zero", "subtract"]
DecayForm = Literal["free", "shift"]
Decision = Literal["mean", "max", "first"]
Encoder = Literal["direct", "bernoulli", "latency", "spikes", "counts", "sequence", "axes", "bands"]
Augmentation = Literal["crop", "flip", "flip_vertical", "rotate", "colour", "erase"]
Binning = Literal["count", "time"]
SurrogateName = Literal["arctan", "sigmoid", "triangular", "rectangular"]
Fraction = Annotated[float, Field(ge=0, lt=1)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


RENAMED = {"beta": "decay", "learn_beta": "learn_decay", "threshold_jitter": "jitter", "input_bits": "input_grid"}
"""Former keys to their present names; CONTRIBUTING.md lists when each one ends."""
_REMOVED = {"winograd", "keep_every", "tensorboard"}
"""Former keys of `TrainConfig`, ignored."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SensorConfig(_Section):
    """Spike counts of the encoders ``axes`` and ``bands`` (see `stl_deploy.data.sensors`).

    unit: value of one spike: a change along an axis, or a band's mean rectified signal in a step. For ``bands`` only:
    rate: samples per second; bands: their number; low, high: range of the bands in Hz (high null: 0.4 of the rate).
    """

    unit: Positive | None = None
    rate: Positive | None = None
    bands: Annotated[int, Field(ge=1, le=1000)] = 16
    low: Positive = 100.0
    high: Positive | None = None


class _Renamed(_Section):
    """A section that had keys of other names, or more keys."""

    @model_validator(mode="before")
    @classmethod
    def _reads_old_names(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        renamed = {old: new for old, new in RENAMED.items() if new in cls.model_fields}
        for old, new in renamed.items():
            if old in data and new in data:
                raise ValueError(f"expected '{new}'; found '{old}', its old name, too; leave '{old}' out")
        return {renamed.get(key, key): value for key, value in data.items() if key not in _REMOVED}


class DatasetConfig(_Renamed):
    """The data set and its encoding.

    - T: time steps per sample. validation_fraction, test_fraction: shares split off where a dataset has no such split.
    - encoder of images: ``direct`` repeats the image at every step (analog input); ``bernoulli`` spikes with the
      pixel's value as probability, drawn anew each step (the paper); ``latency``: one spike per nonzero pixel, brighter
      ones earlier. Of event datasets, gathered into T frames: ``spikes`` marks pixels with any event (0 or 1),
      ``counts`` counts them (integers up to 255; an ANN gets the sum of all frames).
    - binning: event frames of equal ``count`` of events or of equal ``time``. downscale: sum n x n pixels of events.
    - seed: seed of the split, not of the training. data_dir: folder of the files; null: download to the cache.

    Own data (names ``folder``, ``npz`` and ``python``, see docs/own-data.md):

    - path: the folder of images, the npz file, or FILE.py:NAME of a function that returns torch Datasets; relative to
      the configuration's folder.
    - encoder: ``sequence`` passes sequences ``[N, T, *shape]`` unchanged; ``axes`` and ``bands`` turn motion
      ``[N, T, axes]`` and sound ``[N, samples]`` into spike counts 0 to 15, configured by ``sensor``.
    - size: resize images to [height, width], or to squares. colour: null: that of the first image.
    - augment: random torchvision changes to training images, drawn anew each epoch.
    - levels: the value that stands for 1, for integers up to it; null: 255 for 8-bit images, else 1.
    - input_grid: the graph's input is in multiples of 2^-input_grid (also for built-in images); null: 0 for integers,
      else 8.
    - classes: names in label order. input_shape, sha256: of one sample and of all data; written when training begins,
      so that a run folder can be read without its data, and changed data are detected.
    """

    name: str
    data_dir: str | None = None
    T: Annotated[int, Field(ge=1, le=10_000)] = 4
    encoder: Encoder = "direct"
    binning: Binning = "count"
    downscale: Count = 1
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    path: str | None = None
    size: Annotated[tuple[Count, Count] | None, Field(strict=False)] = None
    colour: Literal["grey", "rgb"] | None = None
    augment: Annotated[tuple[Augmentation, ...] | None, Field(strict=False)] = None
    levels: Count | None = None
    input_grid: Annotated[int, Field(ge=0, le=16)] | None = None
    classes: Annotated[tuple[str, ...] | None, Field(strict=False, max_length=100_000)] = None
    input_shape: Annotated[tuple[Count, ...] | None, Field(strict=False, max_length=3)] = None
    sha256: Annotated[str, Field(max_length=129)] | None = None
    sensor: SensorConfig | None = None

    @field_validator("size", mode="before")
    @classmethod
    def _is_square(cls, size: object) -> object:
        return (size, size) if isinstance(size, int) and not isinstance(size, bool) else size

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> DatasetConfig:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                "expected validation_fraction and test_fraction that leave samples to train on, a sum below 1; "
                f"found {self.validation_fraction:g} and {self.test_fraction:g}"
            )
        return self


class AdaptationConfig(_Section):
    """A threshold that rises by ``jump`` with each spike and decays back by ``decay`` a step (`stl_deploy.nn.ALIF`).

    subtracts: amount that reset ``subtract`` subtracts, the threshold's ``baseline`` or the ``adapted`` threshold.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    jump: NotNegative = 0.1
    subtracts: Literal["baseline", "adapted"] = "baseline"


class NeuronConfig(_Renamed):
    """Defaults of all LIF layers; a layer's own entry overrides them (see `stl_deploy.nn.neuron.LIF`).

    synapse_decay: also for li layers; null: no synaptic current. multi_spike: most spikes per step.
    decay_form: ``shift`` restricts decays to 1 - 2^-k. adaptation: for lif layers; null: thresholds do not adapt.
    """

    surrogate: SurrogateName = "arctan"
    reset: Reset = "zero"
    detach_reset: bool = False
    decay: UnitInterval = 0.5
    learn_decay: bool = False
    threshold: float = 1.0
    jitter: NotNegative = 0.0
    parametrisation: Parametrisation = "positive"
    conv_granularity: Granularity = "channel"
    linear_granularity: Granularity = "neuron"
    synapse_decay: UnitInterval | None = None
    multi_spike: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    decay_form: DecayForm = "free"
    adaptation: AdaptationConfig | None = None


class ConvSpec(_Section):
    """2-d convolution with a square kernel."""

    kind: Literal["conv"]
    channels: Count
    kernel: Annotated[int, Field(ge=1, le=1000)] = 3
    stride: Count = 1
    padding: Annotated[int, Field(ge=0, le=1000)] = 0
    bias: bool = False


class LinearSpec(_Section):
    """Fully connected layer."""

    kind: Literal["linear"]
    features: Count
    bias: bool = False


class NormSpec(_Section):
    """Batch norm behind a conv or linear layer.

    per_step: separate batch statistics for each time step, as in the paper's code; else of all T·B together (faster).
    """

    kind: Literal["norm"]
    eps: Positive = 1e-5
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    per_step: bool = False


class SpikingSpec(_Renamed):
    """A population that spikes; null: the value in `NeuronConfig`."""

    kind: Literal["lif", "rlif"]
    threshold: float | None = None
    decay: UnitInterval | None = None
    granularity: Granularity | None = None
    synapse_decay: UnitInterval | None = None
    multi_spike: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class LifSpec(SpikingSpec):
    """A LIF population, whose thresholds may adapt."""

    kind: Literal["lif"]
    adaptation: AdaptationConfig | None = None


class RlifSpec(SpikingSpec):
    """A recurrent LIF population after a linear layer: spikes feed back one step later through learned weights."""

    kind: Literal["rlif"]


class PoolSpec(_Section):
    """Pooling over square windows; ``max`` takes spikes only. stride null: the kernel."""

    kind: Literal["pool"]
    op: Literal["max", "avg", "sum"] = "max"
    kernel: Count = 2
    stride: Count | None = None


class DropoutSpec(_Section):
    """Dropout with a new mask at every time step."""

    kind: Literal["dropout"]
    p: Fraction = 0.5


class FlattenSpec(_Section):
    """Flatten all axes of a sample into one."""

    kind: Literal["flatten"]


class VoteSpec(_Section):
    """The readout: a class's vote is the mean of its ``population`` neurons.

    decision: the ``mean`` over time (a spike count), or the class whose neurons are ``first`` to spike (if several do
    in the same step, the one with most spikes). The training loss always uses means.
    """

    kind: Literal["vote"]
    population: Count = 10
    decision: Literal["mean", "first"] = "mean"


class LiSpec(_Renamed):
    """The membrane readout: one leaky integrator per class, which does not spike.

    decay, synapse_decay: its decays; null: the values in `NeuronConfig`. decision: score by the mean or the maximum of
    the potential over time.
    """

    kind: Literal["li"]
    decay: UnitInterval | None = None
    synapse_decay: UnitInterval | None = None
    decision: Literal["mean", "max"] = "mean"


InnerSpec = Annotated[
    ConvSpec | LinearSpec | NormSpec | LifSpec | PoolSpec | DropoutSpec,
    Field(discriminator="kind"),
]


class ResidualSpec(_Section):
    """A spike-element-wise residual block (SEW-ADD: Fang et al., NeurIPS 2021, eq. 7): spikes of ``layers`` + shortcut.

    layers: the branch, which ends in a lif. shortcut: empty for the identity; else layers that map the input to the
    branch's shape, also ending in a lif. The input must be spikes or sums of spikes.
    """

    kind: Literal["residual"]
    layers: Annotated[tuple[InnerSpec, ...], Field(min_length=1, max_length=MAX_LAYERS, strict=False)]
    shortcut: Annotated[tuple[InnerSpec, ...], Field(max_length=MAX_LAYERS, strict=False)] = ()


class VggSpec(_Section):
    """A block of the VGG form (Simonyan and Zisserman, ICLR 2015): ``convs`` times conv, norm, lif, and then a pool.

    kernel: odd side of the convolutions, which keep the maps' size. per_step: as in norm. pool: over windows of 2x2.
    """

    kind: Literal["vgg"]
    channels: Count
    convs: Annotated[int, Field(ge=1, le=MAX_LAYERS)] = 2
    kernel: Annotated[int, Field(ge=1, le=1000)] = 3
    per_step: bool = False
    pool: Literal["max", "avg", "none"] = "max"

    @field_validator("kernel")
    @classmethod
    def _is_odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"{kernel} is even; maps keep their size behind odd kernels")
        return kernel

    def layers(self) -> tuple[InnerSpec, ...]:
        """The block written out."""
        conv = ConvSpec(kind="conv", channels=self.channels, kernel=self.kernel, padding=self.kernel // 2)
        one = (conv, NormSpec(kind="norm", per_step=self.per_step), LifSpec(kind="lif"))
        pool = () if self.pool == "none" else (PoolSpec(kind="pool", op=self.pool),)
        return one * self.convs + pool


BuiltSpec = (
    ConvSpec
    | LinearSpec
    | NormSpec
    | LifSpec
    | RlifSpec
    | PoolSpec
    | DropoutSpec
    | FlattenSpec
    | VoteSpec
    | LiSpec
    | ResidualSpec
)
"""Kinds that build one layer: all but a vgg block, which is written out as several."""

LayerSpec = Annotated[BuiltSpec | VggSpec, Field(discriminator="kind")]


class TrainConfig(_Renamed):
    """Training: optimiser, loss, schedule, penalties.

    - mode: learn ``stl`` weights and thresholds; ``sl`` weights only; ``tl`` thresholds only, all weights (also batch
      norm's) stay as drawn; ``ann``: ReLUs and a linear readout, with the image shown once.
    - frames: of a sequence the ANN sees all steps ``summed`` in one frame, or ``each``, and decides by the mean.
    - schedule: of the learning rate. ``decay``: times ``lr_decay`` after each epoch. ``one_cycle``: up to ``lr`` over
      the first fifth of training, then down to 0, linearly and batch by batch (see `stl_deploy.training.loop`).
    - threshold_lr_multiplier: learning rate of thresholds relative to weights.
    - optimiser: ``adam`` adds ``weight_decay`` to every gradient (the paper's code); ``adamw`` shrinks only weights,
      not thresholds, biases or norms (Loshchilov and Hutter, ICLR 2019).
    - one_step_epochs: number of first epochs that show one step per sample instead of T, at a T-th of the cost; the
      others start from their result (time inheritance, Deng et al., ICLR 2022). Encoder ``direct`` only.
    - label_smoothing: share of a label that is spread over all classes.
    - loss: ``mse`` between scores (mean votes) and one-hot labels (the paper); ``ce``: cross-entropy of the scores
      times ``ce_scale``; ``tet``: the same of each step's output, averaged over steps (temporal efficient training,
      Deng et al., ICLR 2022, eq. 10 without its regulariser).
    - accumulate: number of parts in which a batch is run, to save memory; gradients equal the whole batch's, except
      that batch norm and penalties see one part at a time.
    - matmul: torch's setting for float32 matrix products in training. ``auto`` measures them and takes the fastest with
      float32's rounding error ('stl-deploy doctor' shows them, metrics.jsonl the one used); elsewhere ``highest``.
    - precision: ``bfloat16`` runs synapses with bfloat16 operands in training, much faster with processor support
      (spikes are exact in it); weights, potentials and thresholds stay float32. Validation and test use float32.
    - shift, flip, cutout: training images are shifted by at most so many pixels, mirrored half of the time, and lose a
      square of this side (DeVries and Taylor, 2017), drawn anew each epoch.
    - rate_target: spikes per neuron and step that every layer is pulled towards. synop_budget: synaptic events per
      sample above which a penalty applies; null: none. energy_weight: the loss grows by this share for each energy of a
      dense ANN pass that a sample's synops cost (see `stl_deploy.training.activity_penalty`).
    """

    mode: LearningMode = "stl"
    frames: Literal["summed", "each"] = "summed"
    epochs: Count = 10
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 64
    lr: Positive = 1e-3
    schedule: Literal["decay", "one_cycle"] = "decay"
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    optimiser: Literal["adam", "adamw"] = "adam"
    weight_decay: NotNegative = 0.0
    threshold_lr_multiplier: NotNegative = 1.0
    loss: Literal["mse", "ce", "tet"] = "mse"
    ce_scale: Positive = 5.0
    label_smoothing: Fraction = 0.0
    accumulate: Count = 1
    one_step_epochs: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    matmul: MatmulChoice = "auto"
    precision: Precision = "float32"
    shift: Annotated[int, Field(ge=0, le=64)] = 0
    flip: bool = False
    cutout: Annotated[int, Field(ge=0, le=64)] = 0
    rate_target: UnitInterval | None = None
    rate_weight: NotNegative = 1.0
    synop_budget: Positive | None = None
    synop_weight: NotNegative = 1.0
    energy_weight: NotNegative = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Annotated[str, Field(pattern=DEVICES)] = "auto"


class FoldConfig(_Section):
    """Folding of the trained network into a graph.

    exact_grid: round weights, biases and inputs to power-of-two grids on which float32 sums are exact.
    weight_bits: width of the integer weights for Loihi; null: the target's own.
    """

    exact_grid: bool = True
    weight_bits: Annotated[int, Field(ge=2, le=8)] | None = None


class RunConfig(_Section):
    """Complete configuration of a run; see `stl_deploy.config.load` for reading and writing it."""

    dataset: DatasetConfig
    network: Annotated[tuple[LayerSpec, ...], Field(min_length=1, max_length=MAX_LAYERS, strict=False)]
    neuron: NeuronConfig = NeuronConfig()
    train: TrainConfig = TrainConfig()
    fold: FoldConfig = FoldConfig()

    @model_validator(mode="after")
    def _one_step_shows_all(self) -> RunConfig:
        if self.train.one_step_epochs and self.dataset.encoder != "direct":
            raise ValueError(
                f"key 'train.one_step_epochs': expected 0 for encoder {self.dataset.encoder!r}, whose steps are not "
                f"alike; found {self.train.one_step_epochs}"
            )
        return self

    @property
    def layers(self) -> tuple[tuple[str, BuiltSpec], ...]:
        """The network's layers in order, vgg blocks written out, each with its place, such as ``network.3``."""
        return tuple(
            (f"network.{index}", layer)
            for index, spec in enumerate(self.network)
            for layer in (spec.layers() if isinstance(spec, VggSpec) else (spec,))
        )

    @property
    def time_steps(self) -> int:
        """Time steps per sample; 1 of an ANN that sees one frame."""
        return 1 if self._one_frame else self.dataset.T

    @property
    def encoder(self) -> Encoder:
        """Encoder of the input; of an ANN that sees one frame ``direct``, or ``counts`` for events."""
        if not self._one_frame:
            return self.dataset.encoder
        return "counts" if self.dataset.encoder not in ("direct", "bernoulli", "latency") else "direct"

    @property
    def twin(self) -> RunConfig:
        """The configuration of the same network as an ANN."""
        return self.with_values(train={"mode": "ann"})

    def with_values(self, **sections: Mapping[str, Any]) -> RunConfig:
        """Return it with other values of keys in some sections: ``config.with_values(train={"lr": 0.01})``."""
        made = {name: getattr(self, name).model_copy(update=changes) for name, changes in sections.items()}
        return self.model_copy(update=made)

    @property
    def _one_frame(self) -> bool:
        still = self.train.frames == "summed" or self.dataset.encoder == "direct"
        return self.train.mode == "ann" and still
