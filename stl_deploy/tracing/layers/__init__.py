"""Convert the graph of one step to a Program: cores become neurons, the operations between them layers.

`builder` walks from the output to the inputs; for each operation that it meets, `KINDS` names the function that makes
the layer.
"""

from stl_deploy.errors import CaptureError
from stl_deploy.tracing.layers import elementwise, pools, shapes, thresholds, weights
from stl_deploy.tracing.layers.builder import Fits, Kind, Layers
from stl_deploy.tracing.layers.cells import CellBuilder
from stl_deploy.tracing.recognition.cells import grouped_signals
from stl_deploy.tracing.unrolling.nodes import MOVED
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Signal, SignalError, Steps
from stl_deploy.tracing.unrolling.time_convolution import BAND
from stl_deploy.tracing.unrolling.time_convolution import NAME as OVER_TIME

KINDS: dict[str, Kind] = {
    "convolution": weights.convolution,
    OVER_TIME: weights.over_time,
    BAND: elementwise.banded,
    "addmm": weights.linear,
    "mm": weights.linear,
    "native_batch_norm": elementwise.batch_norm,
    "_native_batch_norm_legit": elementwise.batch_norm,
    "_native_batch_norm_legit_no_training": elementwise.batch_norm,
    "_batch_norm_no_update": elementwise.batch_norm,
    "max_pool2d_with_indices": pools.maximum,
    "mkldnn_max_pool2d": pools.maximum,
    "adaptive_max_pool2d": pools.adaptive_maximum,
    "amax": pools.largest_over_axes,
    "amin": pools.least_over_axes,
    "bmm": elementwise.batched,
    "avg_pool2d": pools.average,
    "_adaptive_avg_pool2d": pools.adaptive,
    "mean": pools.over_axes,
    "sum": pools.over_axes,
    "reshape": shapes.reshape,
    **dict.fromkeys(("expand", MOVED), shapes.rearranged),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"), weights.along_axes),
    "_upsample_bilinear2d_aa": weights.along_axes,
    "_to_copy": shapes.same,
    "clone": shapes.same,
    "cat": shapes.concatenated,
    "add": elementwise.added,
    "sub": elementwise.added,
    "rsub": elementwise.added,
    "mul": elementwise.multiplied,
    "div": elementwise.multiplied,
    "neg": elementwise.negated,
    "logical_not": elementwise.turned,
    "bitwise_not": elementwise.turned,
    "relu": thresholds.rectified,
    "clamp": thresholds.rectified,
    "clamp_min": thresholds.rectified,
    "clamp_max": thresholds.rectified,
    **dict.fromkeys(("maximum", "logical_or", "bitwise_or"), thresholds.either),
    **dict.fromkeys(("minimum", "logical_and", "bitwise_and"), thresholds.both),
    "gt": thresholds.compared,
    "ge": thresholds.compared,
    "lt": thresholds.compared,
    "le": thresholds.compared,
    "heaviside": thresholds.compared,
    "count": thresholds.compared,
}
"""Builder of the layer of each ATen operation that has a form in a spiking graph."""


def to_layers(steps: Steps) -> Layers:
    """Return the layers of one step: neurons where they have that form, else Cells.

    Raises CaptureError, with the line, for parts without a form.
    """
    left = _groups(steps)
    fits: Fits = {}
    cells: list[tuple[list[Signal], CaptureError]] = []  # and why they are no neurons and layers
    refused: CaptureError | None = None
    while True:
        try:
            builder = CellBuilder(steps, KINDS, [group for group, _ in cells], fits)
            why: dict[Signal, CaptureError] = {error.signal: error for error in builder.unrecognised()}
            if not why:
                return builder.build()
            apart = [(group, why[signal]) for group in left for signal in group if signal in why]
            if not apart:
                raise next(iter(why.values()))
        except CaptureError as error:
            signal = error.signal if isinstance(error, SignalError) else None
            # Only the group at fault becomes a Cell; where no group is, all do.
            apart = [(group, error) for group in left if signal in group]
            if not apart:  # a layer, or a Cell, without a form
                reason = next((reason for group, reason in cells if signal in group), error)
                refused = refused or (error if isinstance(reason, NoNeuronError) else reason)
                if not left:
                    raise CaptureError(refused.reason, line=refused.line) from None
                apart = [(group, error) for group in left]
        cells += apart
        left = [group for group in left if not any(group is other for other, _ in apart)]


def _groups(steps: Steps) -> list[list[Signal]]:
    """Return the signals of each Cell that may be; none where their order has no form."""
    try:
        return grouped_signals(steps)
    except CaptureError:
        return []


__all__ = ["Layers", "to_layers"]
