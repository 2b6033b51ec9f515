"""Convert the graph of one step to a Program: cores become neurons, the operations between them layers.

`builder` walks from the output to the inputs; for each operation that it meets, `KINDS` names the function that makes
the layer.
"""

from collections.abc import Sequence

from stl_deploy.errors import CaptureError
from stl_deploy.tracing.addresses import NAME as REARRANGED
from stl_deploy.tracing.cells import grouped_signals
from stl_deploy.tracing.layers import elementwise, pools, shapes, thresholds, weights
from stl_deploy.tracing.layers.builder import Kind, Layers
from stl_deploy.tracing.layers.cells import CellBuilder
from stl_deploy.tracing.lowering import NoFormError
from stl_deploy.tracing.refractory import explained
from stl_deploy.tracing.steps import Signal, SignalError, Steps
from stl_deploy.tracing.time_convolution import NAME as OVER_TIME

KINDS: dict[str, Kind] = {
    "convolution": weights.convolution,
    OVER_TIME: weights.over_time,
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
    "bmm": elementwise.batched,
    "avg_pool2d": pools.average,
    "_adaptive_avg_pool2d": pools.adaptive,
    "mean": pools.over_axes,
    "sum": pools.over_axes,
    "reshape": shapes.reshape,
    **dict.fromkeys(("permute", "slice", "select", "expand", REARRANGED), shapes.rearranged),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"), weights.as_matrix),
    "_upsample_bilinear2d_aa": weights.as_matrix,
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
    groups: list[list[Signal]] = []
    refused: CaptureError | None = None
    while True:
        try:
            return CellBuilder(steps, KINDS, groups).build()
        except (CaptureError, NoFormError) as error:
            if isinstance(error, CaptureError):
                refused = refused or error
            others = _others(steps, groups, error.signal if isinstance(error, SignalError) else None)
            if not others:
                break
            groups += others
    assert refused is not None  # without Cells, every refusal is one
    raise explained(refused, steps)


def _others(steps: Steps, cells: Sequence[list[Signal]], refused: Signal | None) -> list[list[Signal]]:
    """Return the group of a signal without a form, to be a Cell; all others where none of them has that signal."""
    try:
        others = [group for group in grouped_signals(steps) if group not in cells]
    except NoFormError:
        return []
    return [group for group in others if refused in group] or others


__all__ = ["Layers", "to_layers"]
