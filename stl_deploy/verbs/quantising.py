"""The verb quantise: train a run on through rounding into integers for Loihi or C."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from typer import Option

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import write_json, write_npz
from stl_deploy._util.keywords import named_options
from stl_deploy._util.lock import alone_in
from stl_deploy._util.remedies import named
from stl_deploy._util.system import require_address_space
from stl_deploy._util.temporary import temporary_folder
from stl_deploy._util.units import counted
from stl_deploy._util.working import now_and_then
from stl_deploy.config.load import save_config
from stl_deploy.config.options import FoldOptions
from stl_deploy.config.run_options import QuantiseKeywords, QuantiseOptions
from stl_deploy.config.schema import RunConfig
from stl_deploy.errors import InputError, ParityError
from stl_deploy.exporters.netx.chain import refusals
from stl_deploy.exporters.netx.forms import (
    HOLDS,
    IN_C,
    FormRow,
    Models,
    compare_forms,
    proves_nothing,
    quantise_forms,
    run_integers,
    show_forms,
)
from stl_deploy.exporters.netx.model import NetxModel, export_netx, layer_facts
from stl_deploy.graph.compare import FiringRates, Tally
from stl_deploy.graph.exact import input_scale
from stl_deploy.graph.readout import accuracy
from stl_deploy.graph.run import Result
from stl_deploy.integers.net import LOIHI, WIDE
from stl_deploy.integers.per_pixel import average_thresholds, per_pixel
from stl_deploy.integers.qat.network import quantised_network, require_same_integers, whole_config, whole_state
from stl_deploy.integers.quantise import IntegerModel, choose
from stl_deploy.nn.network import Network
from stl_deploy.nn.to_program import with_numbers
from stl_deploy.runs.folded_run import FoldedRun, fold_run
from stl_deploy.runs.inputs import LabelledInput, encode_split
from stl_deploy.runs.source import TEST_INPUT
from stl_deploy.training import checkpoint
from stl_deploy.training.evaluate import evaluate
from stl_deploy.training.fine_tune import fine_tune
from stl_deploy.training.loop import pick_device
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, MODEL
from stl_deploy.training.run_folder import forget_results
from stl_deploy.verbs.arguments import RunArg

FILE = "quantised.json"
UNFINISHED = "unfinished"
"""The folder in the new run's that keeps the training until it ends."""
CALIBRATION = 512
TRAINED = "quantisation-aware"
LEARNING_RATE = {"decay": 0.3, "one_cycle": 0.03}
"""Of the run's own, to begin with, by its schedule: a one-cycle's is its peak, past which it ended near 0."""


@named_options(QuantiseOptions)
def quantise(
    run_dir: RunArg,
    output: Annotated[Path, Option("-o", "--output", metavar="DIR", help="The new run folder.")],
    options: QuantiseOptions | None = None,
    *,
    known: Sequence[FormRow] | None = None,
    say: Console = QUIET,
    **keywords: Unpack[QuantiseKeywords],
) -> dict[str, Any]:
    """Train weights and thresholds of ``run_dir`` as Loihi's integers into the new run folder ``output``.

    ``output`` receives config.yaml, model.safetensors, net.nir, net.net (if netx supports the network), test.npz and
    quantised.json (the table float -> post-training -> quantisation-aware), and is a source for every verb.

    Args:
        options: An options object, or its fields as keywords, as in ``quantise(run, output, epochs=3)``.
        known: The table's rows up to post-training, if `before_training` has computed them.

    Returns:
        The table (JSON-ready).

    Raises:
        InputError: For an unreadable run.
        ConfigError: For a missing device.
        UnsupportedError: For nodes without integer form.
        ParityError: If a spike of the written integers differs from the trained network.
    """
    options = options or QuantiseOptions(**keywords)
    if run_dir.is_file():
        raise InputError(
            f"{run_dir}: expected a run folder, which says what to train on; found a file; train a captured module in "
            "Python: net.quantised()"
        )
    if output.resolve() == run_dir.resolve():
        raise InputError(f"{output}: the run to start from; name another folder")
    if (output / MODEL).exists() and not (output / FILE).exists():
        raise InputError(f"{output}: holds a trained run; name another folder for the one in integers")
    checkpoints = output / UNFINISHED
    say.keep(checkpoints)
    if options.resume and not (checkpoints / CHECKPOINT).is_file():
        raise InputError(f"{output}: expected a folder in which 'quantise' trained an epoch; found nothing to resume")
    if options.lr is not None and not options.lr > 0:
        raise InputError(f"expected a learning rate above 0; found {options.lr:g}")
    if options.epochs < 0:
        raise InputError(f"expected 0 epochs (rounding only) or more; found {options.epochs}")
    if not 2 <= options.weight_bits <= 8:
        raise InputError(f"{named('weight_bits')}: expected 2 to 8 bits, sign included; found {options.weight_bits}")
    require_address_space()
    pick_device(options.device, named("device"))
    with alone_in(output), temporary_folder(output) as made:
        table = _quantise(run_dir, made, options, known, say, output)
        forget_results(output)
        shutil.rmtree(checkpoints, ignore_errors=True)
        # moved once all is written: a failure leaves the former run as it was
        for file in made.iterdir():
            file.replace(output / file.name)
    if (output / "net.net").exists():
        say.say(f"next:  stl-deploy verify {output} --against {output / 'net.net'}   stl-deploy simulate {output} ...")
    else:
        say.say(f"next:  stl-deploy export {output} --to c -o DIR   (netx cannot hold the network)")
    return table


def _quantise(
    run_dir: Path, made: Path, options: QuantiseOptions, known: Sequence[FormRow] | None, say: Console, output: Path
) -> dict[str, Any]:
    """Write all files of the new run to the folder ``made``; they move to ``output`` once complete."""
    folded = fold_run(run_dir, made / "net.nir", FoldOptions(input_grid=options.input_grid))
    test = encode_split(folded.config, folded.data.test, options.samples)
    calibration = encode_split(folded.config, folded.data.train, CALIBRATION).x
    network = _begin(folded, calibration, options.weight_bits)
    if known is None:
        say.step("Post-training quantisation in each threshold form")
        known = before_training(
            folded, quantise_forms(folded.program, calibration), test, now_and_then(say, "test samples")
        )
    rows = [*known]
    network = _train(network, folded, options, say, output / UNFINISHED)
    model, layers = _write(folded.config, network, made, test, calibration)
    differing, compared, y, dead = compare_spikes(network, model, test.x)
    if differing:
        raise ParityError(
            f"{output}: the integer model differs from the trained network in {differing} of {compared} spikes"
        )
    trained = accuracy(folded.program, Result({"output": y}, {}), test.labels)
    form = "projected" if per_pixel(folded.program) else "folded"
    holds = HOLDS[form] if isinstance(model, NetxModel) else IN_C
    rows.append(FormRow(TRAINED, form, trained, holds=holds, dead=dead))
    show_forms(rows, say, test.x.shape[1], test.x.shape[1])
    what = "netx file" if isinstance(model, NetxModel) else "integer model"
    beside = proves_nothing(dead)
    say.say(f"the {what} spikes exactly as the trained network: 0 of {compared:,} spikes differ{beside}")
    facts = {
        "source": run_dir.name,
        "samples": len(test.labels),
        "rows": [asdict(row) for row in rows],
        "spikes_compared": compared,
        "spikes_differing": differing,
        "layers": layers,
    }
    write_json(made / FILE, facts)
    return {"run": str(output), **facts}


def before_training(
    folded: FoldedRun, models: Models, test: LabelledInput, progress: Callable[[int, int], None] | None = None
) -> list[FormRow]:
    """Return rows of the trained network, its graph, and its integers in each threshold form, on the test samples."""
    floats = evaluate(folded.trained, folded.data.test.some(len(test.labels)), folded.config).accuracy
    rows = compare_forms(folded.program, models, test.x, test.labels, progress)
    return [FormRow("float", "as trained", floats, holds="float32"), *rows]


def _begin(folded: FoldedRun, calibration: NDArray[Any], weight_bits: int) -> Network:
    """Replace layers of the folded network by rounding ones; done before all long work, since it may be refused."""
    program = average_thresholds(folded.program)
    host, top = not refusals(program), 2 ** (weight_bits - 1) - 1
    start = choose(program, calibration, "folded", LOIHI if host else WIDE, top)
    network = with_numbers(folded.trained, folded.folded.program)
    return quantised_network(network, program, start, host=host, weight_top=top).requires_grad_(True)


def _train(network: Network, folded: FoldedRun, options: QuantiseOptions, say: Console, checkpoints: Path) -> Network:
    config = folded.config
    lr = options.lr if options.lr is not None else config.train.lr * LEARNING_RATE[config.train.schedule]
    say.step(f"Quantisation-aware training, {counted(options.epochs, 'epoch')}, learning rate {lr:g}")
    if options.epochs:
        torch.manual_seed(config.train.seed)
        network.to(pick_device(options.device, named("device")))
        checkpoints.mkdir(exist_ok=True)
        kept: dict[str, Any] = {"checkpoints": checkpoints, "resume": options.resume}
        with say.training() as batch:
            picked = fine_tune(
                network, config, folded.data, epochs=options.epochs, lr=lr, progress=say.epoch, batch=batch, **kept
            )
        say.say(f"epoch {picked} was best on validation" + (" (the start)" if picked == 0 else ""))
    return network.cpu().eval()


@torch.no_grad()
def _write(
    config: RunConfig, network: Network, output: Path, test: LabelledInput, calibration: NDArray[Any]
) -> tuple[NetxModel | IntegerModel, list[dict[str, Any]]]:
    """Write the run folder of integers: its graph, and the integers of its netx file, or of C if netx has none.

    Returns them and each layer's result.
    """
    plain = whole_config(config, network)
    state = whole_state(network)
    checkpoint.save_model(output, state, {"mode": config.train.mode, "quantised": "loihi"})
    save_config(plain, output / CONFIG)
    program = fold_run(output, output / "net.nir").program
    write_npz(output / TEST_INPUT, {"x": test.x, "y": test.labels})
    if refusals(program):
        chosen = choose(program, calibration)
        require_same_integers(network.layers, chosen.graph)
        return chosen, [asdict(fit) for fit in chosen.fits]
    scale = input_scale(program)
    model = export_netx(program, output / "net.net", calibration=calibration, input_scale=scale)
    assert model.integers is not None
    require_same_integers(network.layers, model.integers.graph)
    return model, layer_facts(model, program)


@torch.no_grad()
def compare_spikes(
    network: Network, model: NetxModel | IntegerModel, x: NDArray[np.float32]
) -> tuple[int, int, NDArray[np.float32], dict[str, str]]:
    """Compare spikes of the fake-quantised network and the integer model.

    x: ``[T, B, *shape]``; the output has the same form. Returns (differing, compared) spikes, the model's output, and
    its layers that are silent or saturated.
    """
    tally, rates, outputs = Tally(), FiringRates(), []
    for start in range(0, x.shape[1], 256):
        part = x[:, start : start + 256]
        _, recorded = network.record(torch.from_numpy(part))
        integers = run_integers(model, part)
        tally.add({name: recorded[name].numpy() for name in integers.spikes}, integers.spikes)
        rates.add(integers.spikes)
        outputs.append(integers.y)
    return tally.differing, tally.compared, np.concatenate(outputs, axis=1), rates.dead
