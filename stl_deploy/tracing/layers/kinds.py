"""The function that makes a layer, for each ATen operation that has a form in a spiking graph."""

from __future__ import annotations

from stl_deploy.tracing.layers import elementwise, norms, pools, shapes, thresholds, weights
from stl_deploy.tracing.layers.builder import Kind

KINDS: dict[str, Kind] = {
    "convolution": weights.convolution,
    "addmm": weights.linear,
    "mm": weights.linear,
    "native_batch_norm": norms.batch_norm,
    "_native_batch_norm_legit": norms.batch_norm,
    "_native_batch_norm_legit_no_training": norms.batch_norm,
    "_batch_norm_no_update": norms.batch_norm,
    "max_pool2d_with_indices": pools.maximum,
    "mkldnn_max_pool2d": pools.maximum,
    "adaptive_max_pool2d": pools.adaptive_maximum,
    "amax": pools.largest_over_axes,
    "bmm": weights.linear,
    "avg_pool2d": pools.average,
    "_adaptive_avg_pool2d": pools.adaptive,
    "mean": pools.over_axes,
    "sum": pools.over_axes,
    "reshape": shapes.reshape,
    **dict.fromkeys(("permute", "slice", "select", "expand", "flip", "roll"), shapes.rearranged),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col"), shapes.rearranged),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "constant_pad_nd"), shapes.rearranged),
    **dict.fromkeys(("reflection_pad1d", "reflection_pad2d", "replication_pad1d"), shapes.rearranged),
    "replication_pad2d": shapes.rearranged,
    "_to_copy": shapes.same,
    "clone": shapes.same,
    "cat": shapes.concatenated,
    "add": elementwise.added,
    "sub": elementwise.added,
    "rsub": elementwise.added,
    "mul": elementwise.multiplied,
    "div": elementwise.multiplied,
    "neg": elementwise.negated,
    "relu": thresholds.rectified,
    "clamp": thresholds.rectified,
    "clamp_min": thresholds.rectified,
    "gt": thresholds.compared,
    "ge": thresholds.compared,
    "lt": thresholds.compared,
    "le": thresholds.compared,
    "heaviside": thresholds.compared,
}
