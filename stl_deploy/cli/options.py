"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Target = Literal["nir", "onnx", "netx"]
Backend = Literal["reference", "onnx", "loihi", "lava"]
NetxThresholds = Literal["folded", "per-layer", "per-neuron", "projected", "unrolled"]
FoldThresholds = Literal["keep", "weights"]
JointWeights = Literal["equal", "learned"]
OnnxForm = Literal["sequence", "step"]
Precision = Literal["float32", "exact", "int8", "integer"]
Reader = Literal["snntorch", "norse", "spikingjelly", "sinabs"]
LearningMode = Literal["stl", "sl", "tl", "ann"]

SourceArg = Annotated[Path, typer.Argument(metavar="SOURCE", help="A run folder or a .nir file.")]
RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Data on stdout, for scripts.")]
DialectOption = Annotated[
    str | None,
    typer.Option(
        "--dialect",
        metavar="NAME|FILE.json",
        help="How the .nir file is meant; default: its own metadata, else spec. See: stl-deploy targets.",
    ),
]
InputOption = Annotated[
    Path | None,
    typer.Option("--input", "-i", metavar="X.npz", help="x [T, B, *shape] and optionally labels y [B]."),
]
