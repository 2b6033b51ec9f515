"""The verb eval: accuracy of a trained run, and of the artifacts in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from torch.utils.data import TensorDataset
from typer import Argument, Option

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.remedies import named, option
from stl_deploy._util.system import require_address_space
from stl_deploy._util.units import counted
from stl_deploy.data import load_dataset
from stl_deploy.errors import InputError, ToolError, UnsupportedError
from stl_deploy.exporters.targets import format_of
from stl_deploy.graph.compare import rate_warnings
from stl_deploy.pipeline.artifacts import ready
from stl_deploy.pipeline.conversion_data import parts_of
from stl_deploy.pipeline.evaluate_graph import evaluate_graph
from stl_deploy.pipeline.fast_path import announce
from stl_deploy.pipeline.results import GraphEvaluation
from stl_deploy.runs.inputs import LabelledInput, encode_split
from stl_deploy.runs.manifest import check_network, check_unchanged
from stl_deploy.runs.source import GRAPH, PROGRAM, graph_of, is_network_file, read
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.evaluate import Evaluation
from stl_deploy.training.evaluate import evaluate as evaluate_network
from stl_deploy.training.run_files import MODEL
from stl_deploy.verbs.arguments import RUNS_CODE, InputGrid

_BATCH = 256


def evaluate(
    run_dir: Annotated[Path, RUNS_CODE, Argument(metavar="SOURCE", help="A run folder, a .nir or .program file.")],
    *,
    data: Annotated[
        str | None,
        Option(metavar="DATASET|X.npz|FOLDER", help="Of a file: labelled samples x [N, ...], as convert takes them."),
    ] = None,
    steps: Annotated[
        int | None, Option(help="Of a file: steps that each sample is shown; default: as converted.")
    ] = None,
    backend: Annotated[
        list[str] | None, Option(metavar="NAME|PATH", help="Of a file: a backend or an artifact, too; repeat it.")
    ] = None,
    input_grid: InputGrid = None,
    say: Console = QUIET,
) -> dict[str, Any]:
    """Return accuracy, spike rates and thresholds of a run's picked weights on its test split (JSON-ready).

    Where the folder holds the graph, also the accuracy and differing spikes of the graph and of every artifact there.
    Of a file: accuracy on the test split of ``data``, or on all of it where it has none, and each ``backend``'s; of one
    that `convert` made, on the samples that it judges on.
    """
    if is_network_file(run_dir):
        return _evaluate_file(run_dir, data, say, steps=steps, backend=backend or [], input_grid=input_grid)
    if (data, steps, backend, input_grid) != (None,) * 4:
        raise InputError(
            f"{run_dir}: {named('data')} and its options apply to files; a run has test samples of its own"
        )
    say.step(f"{run_dir}: running its test split")
    require_address_space()
    network, config = load_network(run_dir)
    check_unchanged(run_dir, (MODEL,))
    announce("cpu", say)
    test = load_dataset(config.dataset).test
    result = evaluate_network(network, test, config)
    _show(result, say)
    for warning in () if config.train.mode == "ann" else rate_warnings(result.rates):
        say.warn(warning)
    results: dict[str, Any] = {"run": str(run_dir), "test": result.as_dict()}
    if graph_of(run_dir) is not None and config.train.mode != "ann":
        artifacts = _evaluate_artifacts(run_dir, encode_split(config, test), say)
        results |= {} if artifacts is None else {"artifacts": artifacts.as_dict()}
    return results


def _evaluate_file(path: Path, data: str | None, say: Console, **options: Any) -> dict[str, Any]:
    net = read(path)
    test = None if data is None else parts_of(data, whole=net.conversion is None).test
    if test is None:
        raise InputError(f"{path}: expected labelled samples; found none; give them with {option('data', 'X.npz')}")
    samples: Any = TensorDataset(*test)
    result = evaluate_graph(net, samples, batch_size=_BATCH, **options)
    for line in str(result).splitlines():
        say.say(line)
    return {"source": str(path), "test": result.as_dict()}


def _evaluate_artifacts(run_dir: Path, test: LabelledInput, say: Console) -> GraphEvaluation | None:
    """Evaluate the graph and every artifact of the folder on the same samples; None for per-step labels."""
    if test.labels.ndim != 1:
        return None
    check_network(run_dir)
    net = read(run_dir)
    artifacts, left_out = [], {}
    for path in sorted(run_dir.iterdir()):
        to = format_of(path)
        if to is None or to.name in (GRAPH, PROGRAM):
            continue
        try:
            # tried first: one artifact that cannot run would end the evaluation of all
            ready(to.load(path), net.program)
        except (InputError, ToolError, UnsupportedError) as error:
            left_out[path.name] = str(error)
        else:
            artifacts.append(path)
    say.step(f"{counted(len(artifacts), 'artifact')} and the graph on {counted(len(test.labels), 'test sample')}")
    parts = [slice(start, start + _BATCH) for start in range(0, len(test.labels), _BATCH)]
    batches = [(test.x[:, part], test.labels[part]) for part in parts]
    result = evaluate_graph(net, batches, time="first", backend=artifacts)
    result = replace(result, refused={**result.refused, **left_out})
    for line in str(result).splitlines():
        say.say(line)
    return result


def _show(result: Evaluation, say: Console) -> None:
    say.say(f"test accuracy {result.accuracy:.2%} on {result.samples} samples, loss {result.loss:.4f}")
    rows = []
    for name, rate in result.rates.items():
        theta = result.thresholds.get(name)
        spread = f"{theta.min:.3f} / {theta.mean:.3f} / {theta.max:.3f}" if theta is not None else "-"
        rows.append([name, f"{rate:.4f}", spread])
    say.table(["layer", "spikes per neuron and step", "threshold min / mean / max"], rows)
