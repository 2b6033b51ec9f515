"""Make a ready-made model from a trained run and its ANN twin: ``python -m benchmarks.ready_made NAME RUN TWIN …``.

Weights are rounded to 8 bits with a scale for each output, both networks are tested again with the rounded ones, and
the card says what came out: accuracy, and what the verb energy says of one against the other.
Without RUN and TWIN (``python -m benchmarks.ready_made NAME [--data-dir DIR] [--command …]``) nothing is trained or
rounded: a model that is there keeps its weights and accuracy, and its card gets its energy, and the texts given, anew.
``--frontier DIR`` names the narrower ANNs that ``stl-deploy energy RUN --frontier`` kept in ``RUN/frontier``, for the
cheapest ANNs that are no less accurate; a card alone keeps those it has if the SNN's energy stays, and always that
none is: accuracies do not change with prices.
Either way the table of all cards in docs/training.md is written again.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from stl_deploy._util.files import read_json, sha256, write_json, write_text
from stl_deploy._util.json_twin import from_twin
from stl_deploy._util.tensor_file import read_tensors, write_tensors
from stl_deploy._util.units import counted
from stl_deploy.config.load import dump_config, load_config
from stl_deploy.data import load_dataset
from stl_deploy.energy.measure import EnergyReport
from stl_deploy.energy.models.frontier import FLOWS, WIDTHS, Frontier, Point
from stl_deploy.energy.models.grid import LAYER_BY_LAYER, beside, leading, quoted
from stl_deploy.energy.models.ratios import Ratio, percent
from stl_deploy.energy.models.verdict import equal_at
from stl_deploy.energy.paired import MARGIN, check_margin, compare
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.training import pretrained
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.evaluate import evaluate
from stl_deploy.training.pretrained.unpacking import SCALE, by_output, unpack_folder, unpacked
from stl_deploy.training.run_files import CONFIG, METRICS, MODEL
from stl_deploy.training.run_folder import FRONTIER
from stl_deploy.verbs.energy_of import energy as bill
from stl_deploy.verbs.listings import AGAINST_ANNS, against_anns, costs
from stl_deploy.verbs.whole_way import keep_test_input

FOLDER = Path(pretrained.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "training.md"
BEGIN, END = "<!-- ready-made:begin -->", "<!-- ready-made:end -->"
_Z = 1.959964
"""Of a 95 % interval."""
_TINY = torch.finfo(torch.float32).tiny
_MOST = 127
_WEIGHTS = ("model.safetensors", "twin.safetensors")
_OF_THE_SNN = ("synops_AC", "synops_MAC", "spikes", "quoted", "quoted_layer_by_layer")
"""Of a card's energy: while these stay, so does the comparison with narrower ANNs."""
_TEXTS = ("data", "licence", "command", "twin_command", "commit")


def wilson(correct: int, samples: int) -> pretrained.Accuracy:
    """The share of correct samples with its 95 % Wilson score interval."""
    share, spread = correct / samples, _Z**2 / samples
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / samples + spread / (4 * samples))
    return pretrained.Accuracy(correct, samples, round(middle - half, 4), round(middle + half, 4))


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Synaptic weights ``[outputs, ...]`` as int8 and scales ``[outputs]``, kept as ``NAME.scale``; others as given."""
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.dim() > 1:
            scale = tensor.flatten(1).abs().amax(1).clamp(min=_TINY) / _MOST
            small[name] = (tensor / by_output(scale, tensor)).round().to(torch.int8)
            small[name + SCALE] = scale
        else:
            small[name] = tensor
    return small


def _rounded(run: Path, target: Path, config_file: str, weights: str) -> tuple[pretrained.Accuracy, int]:
    """Write the run's weights in 8 bits and what they reach on the test split."""
    network, config = load_network(run)
    tensors, facts = read_tensors(run / MODEL)
    small = packed(tensors)
    network.load_state_dict(unpacked(small))
    test = evaluate(network, load_dataset(config.dataset).test, config)
    portable = config.model_copy(update={"dataset": config.dataset.model_copy(update={"data_dir": None})})
    write_text(target / config_file, dump_config(portable))
    write_tensors(target / weights, small, {**facts, "test": test.as_dict(), "rounded": "8 bits"})
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return wilson(round(test.accuracy * test.samples), test.samples), parameters


def weights_of(file: Path) -> str:
    """Describe the rounding of a file's synaptic weights."""
    kinds = {tensor.dtype for tensor in read_tensors(file)[0].values()}
    return "8 bits, one scale per output" if torch.int8 in kinds else "float16"


def energy_of(report: EnergyReport) -> pretrained.Energy:
    """Extract a card's figures from the energy report on a network and its measured twin."""
    cell, totals = quoted(report.comparisons), report.counts.totals
    batched = quoted(report.comparisons, LAYER_BY_LAYER)
    assert cell is not None
    assert batched is not None
    cells, rate = beside(report.comparisons, cell), report.break_even.spike_rate
    ends = report.ratio_range
    assert rate is not None
    assert ends is not None
    return pretrained.Energy(
        samples=report.counts.batch,
        synops_AC=totals.synops_AC,
        synops_MAC=totals.synops_MAC,
        spikes=totals.spikes,
        spike_rate=_short(rate),
        ann_macs_exact=totals.ann_macs_exact,
        active_fraction=_short(report.ann_twin["active_fraction"]),
        label="modelled",
        snn_over_ann=(_short(ends[0]), _short(ends[1])),
        quoted=_quoted(cell),
        quoted_layer_by_layer=_quoted(batched),
        break_even=equal_at(report.break_even, leading(report.counts)),
        narrower_anns=0 if report.frontier is None else len(report.frontier.ann) - 1,
        proved_ann=_cheapest(report.frontier, _is_proved),
        measured_ann=_cheapest(report.frontier, lambda snn, ann: ann.accuracy >= snn.accuracy),
        prices={each.prices.name: each.prices.source for each in cells},
    )


def _quoted(cell: Ratio) -> pretrained.Quoted:
    fields = cell.as_dict()
    keys = ("dataflow", "sums", "width", "prices", "ann_zeros")
    return pretrained.Quoted(**{key: fields[key] for key in keys}, snn_over_ann=_short(cell.ratio))


def _is_proved(snn: Point, ann: Point) -> bool:
    share = check_margin(MARGIN)
    return -compare(snn.decided, ann.decided, share).interval[0] <= share


def _cheapest(frontier: Frontier | None, is_kept: Callable[[Point, Point], bool]) -> pretrained.CheapestAnn | None:
    """Return the cheapest kept ANN beside the SNN as it is; None without any."""
    if frontier is None:
        return None
    snn = frontier.snn[0]
    kept = [(ann.joules, width, ann) for width, ann in zip(WIDTHS, frontier.ann, strict=True) if is_kept(snn, ann)]
    if not kept:
        return None
    joules, width, ann = min(kept, key=lambda each: each[0])
    times = (_short(snn.cost(flow) / joules) for flow in FLOWS)
    return pretrained.CheapestAnn(width, _short(ann.accuracy), _short(joules), *times)


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def energy_with(
    folder: Path, hashes: Mapping[str, str], data_dir: str | None, frontier: Path | None
) -> pretrained.Energy:
    """The verb energy on a model's folder, with the test samples that ``run NAME --pretrained`` takes.

    frontier: the narrower ANNs that a run kept.
    """
    with tempfile.TemporaryDirectory() as place:
        run = Path(place)
        unpack_folder(folder, hashes, run, data_dir)
        if frontier is not None:
            shutil.copytree(frontier, run / FRONTIER)
        keep_test_input(fold_run(run, run / "net.nir"), run)
        return energy_of(bill(run, None))


def make(arguments: argparse.Namespace) -> pretrained.Card:
    """Write the model's folder; returns its card."""
    target = FOLDER / arguments.name
    target.mkdir(exist_ok=True)
    accuracy, parameters = _rounded(arguments.run, target, "config.yaml", "model.safetensors")
    twin_accuracy, _ = _rounded(arguments.twin, target, "twin.yaml", "twin.safetensors")
    write_text(target / METRICS, (arguments.run / METRICS).read_text(encoding="utf-8"))
    config, data_dir = load_config(target / "config.yaml"), load_config(arguments.run / CONFIG).dataset.data_dir
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    hashes = {name: sha256(target / name) for name in _WEIGHTS}
    return pretrained.Card(
        name=arguments.name,
        dataset=config.dataset.name,
        data=arguments.data,
        licence=arguments.licence,
        share_alike=arguments.share_alike,
        command=arguments.command,
        twin_command=arguments.twin_command or f"{arguments.command} --mode ann",
        seed=config.train.seed,
        commit=arguments.commit or head,
        time_steps=config.time_steps,
        parameters=parameters,
        weights=weights_of(target / "model.safetensors"),
        accuracy=accuracy,
        twin_accuracy=twin_accuracy,
        energy=energy_with(target, hashes, data_dir, arguments.frontier),
        sha256=hashes,
    )


def refreshed(arguments: argparse.Namespace) -> pretrained.Card:
    """The card of a model that is there, with its energy counted again and the texts that were given."""
    target = FOLDER / arguments.name
    kept = read_json(target / "card.json")
    given = {key: text for key in _TEXTS if (text := getattr(arguments, key)) is not None}
    weights = weights_of(target / "model.safetensors")
    energy = asdict(energy_with(target, kept["sha256"], arguments.data_dir, arguments.frontier))
    before = kept.get("energy", {})
    stays = all(before.get(key) == energy[key] for key in _OF_THE_SNN)
    none_is_equal = bool(before) and before["proved_ann"] is None and before["measured_ann"] is None
    if arguments.frontier is None and (stays or none_is_equal):
        energy |= {key: before.get(key, energy[key]) for key in ("narrower_anns", "proved_ann", "measured_ann")}
    return from_twin(
        pretrained.Card, {**kept, **given, "weights": weights, "energy": energy}, str(target / "card.json")
    )


def table() -> str:
    """Format accuracy and energy of every card in Markdown; counts are the mean of one sample."""
    lines = [
        "| model | accuracy | its ANN twin | synops, AC + MAC | the twin's dense MACs | spikes per neuron and step | "
        f"counted on | the SNN costs, modelled | {' | '.join(AGAINST_ANNS)} |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for card in map(pretrained.card, pretrained.names()):
        energy, shares = card.energy, (card.accuracy, card.twin_accuracy)
        each = [round(count / energy.samples) for count in (energy.synops_AC, energy.synops_MAC, energy.ann_macs_exact)]
        cells = [
            f"`{card.name}`",
            *(f"{share.correct / share.samples:.2%}".replace("%", " %") for share in shares),
            f"{each[0]:,} + {each[1]:,}",
            f"{each[2]:,}",
            percent(energy.spike_rate),
            counted(energy.samples, "sample"),
            costs(energy),
            *against_anns(energy),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_table() -> None:
    """Put `table` where the page shows it."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_text(PAGE, f"{before}{BEGIN}\n{table()}\n{END}{after}")


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("run", type=Path, nargs="?", help="left out with TWIN: the card alone is made anew")
    parser.add_argument("twin", type=Path, nargs="?")
    parser.add_argument("--data", help="what the data are and where they come from")
    parser.add_argument("--licence", help="of the data")
    parser.add_argument("--share-alike", action="store_true")
    parser.add_argument("--command", help="that trained the network")
    parser.add_argument("--twin-command", help="that trained the twin; default: the network's, with --mode ann")
    parser.add_argument("--commit", help="of the code that trained it; default: HEAD")
    parser.add_argument("--data-dir", help="where the data are, for a card alone; a RUN knows")
    parser.add_argument("--frontier", type=Path, metavar="DIR", help="narrower ANNs that a run kept: RUN/frontier")
    arguments = parser.parse_args(words)
    if arguments.run is not None and None in (arguments.twin, arguments.data, arguments.licence, arguments.command):
        parser.error("a model of RUN needs TWIN, --data, --licence and --command")
    if arguments.frontier is not None and not arguments.frontier.is_dir():
        parser.error(f"--frontier: expected the folder of ANNs that a run kept; found no folder {arguments.frontier}")
    if arguments.run is None and arguments.share_alike:
        parser.error("--share-alike is of a model that is made of RUN and TWIN; give both, or change the card by hand")
    torch.manual_seed(0)
    card = (refreshed if arguments.run is None else make)(arguments)
    write_json(FOLDER / arguments.name / "card.json", card.as_dict())
    write_table()
    print(json.dumps(card.as_dict(), indent=2))


if __name__ == "__main__":
    main()
