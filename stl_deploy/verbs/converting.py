"""The verb convert: an ANN of the user's Python file as a spiking network."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import write_text
from stl_deploy._util.remedies import option
from stl_deploy.errors import InputError
from stl_deploy.exporters.program.file import SUFFIX as PROGRAM_SUFFIX
from stl_deploy.exporters.program.file import write_program
from stl_deploy.passes.spikes_for_relus import Form
from stl_deploy.pipeline.convert import convert as convert_module
from stl_deploy.report.page.conversion import render_conversion
from stl_deploy.runs.user_module import load_module, name_in_file
from stl_deploy.verbs.arguments import As, number_or_text


def convert(
    module: Annotated[
        str,
        Argument(
            metavar="FILE.py:NAME",
            help="A trained ReLU network: its name in the file, or that of a class or function that makes it. The file "
            "is run.",
        ),
    ],
    data: Annotated[
        str,
        Option(
            metavar="DATASET|X.npz|FOLDER", help="Samples x [N, ...] and labels y, to calibrate, choose and judge on."
        ),
    ],
    output: Annotated[Path, Option("-o", "--output", metavar="NET.program", help="File to write.")],
    *,
    weights: Annotated[
        Path | None,
        Option(metavar="W.safetensors|.pt|.pth|.ckpt", help="Weights of the module; nothing else in the file is used."),
    ] = None,
    levels: Annotated[
        int | str, As(str), Option(metavar="N|auto", help="Levels of a neuron's count, or steps of its rate.")
    ] = "auto",
    within: Annotated[float, Option(metavar="POINTS", help="Accuracy that may be lost where levels are 'auto'.")] = 0.5,
    learn: Annotated[int, Option(metavar="EPOCHS", help="Learn thresholds, then weights, from the ANN's outputs.")] = 0,
    form: Annotated[Form, Option(help="Several spikes at one step, or binary spikes over several steps.")] = "counts",
    say: Console = QUIET,
) -> dict[str, Any]:
    """Convert ``FILE.py:NAME``, write the network and a page of its candidates; return the same, JSON-ready.

    Executes the user's file, and prints that it does. data: the name of a dataset, an npz file or a folder of images.
    Other arguments as of `stl_deploy.convert`, whose errors it raises.
    """
    if output.suffix != PROGRAM_SUFFIX:
        other = option("output", str(output.with_suffix(PROGRAM_SUFFIX)))
        raise InputError(f"{output}: expected a {PROGRAM_SUFFIX} file, which holds every network; give {other}")
    count: Any = number_or_text(levels)
    say.say(f"running {name_in_file(module)[0]}, which is your code")
    ann = load_module(module, weights, say)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        net = convert_module(
            ann, data, levels=count, within=within, learn=learn, form=form, progress=False if say.quiet else None
        )
    for warning in caught:
        say.warn(str(warning.message))
    page, conversion = output.with_suffix(".html"), net.conversion
    assert conversion is not None
    html = render_conversion(conversion)
    write_program(net.program, output)
    write_text(page, html)
    say.say(str(conversion))
    say.say(f"written: {output} and {page} (opens offline)")
    return {"output": str(output), "conversion": conversion.as_dict()}
