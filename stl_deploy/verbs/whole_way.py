"""The verb run: train (or take a ready-made model), fold, export all, verify all, simulate, energy, report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import torch

from stl_deploy._util import install
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, sha256, write_json, write_npz
from stl_deploy._util.keywords import named_options
from stl_deploy._util.lock import alone_in
from stl_deploy._util.remedies import verb
from stl_deploy._util.units import counted
from stl_deploy._util.working import now_and_then
from stl_deploy.config.load import load_config
from stl_deploy.config.options import EnergyOptions
from stl_deploy.config.run_options import RunKeywords, RunOptions
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Dataset, load_dataset
from stl_deploy.energy.measure import EnergyReport
from stl_deploy.energy.paired import MARGIN, check_margin
from stl_deploy.errors import InputError, StlDeployError, ToolError, UnsupportedError
from stl_deploy.exporters.targets import find_format, find_runner, why_unavailable
from stl_deploy.graph.program import Floats
from stl_deploy.graph.run import Result
from stl_deploy.nn.network import Network
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.pipeline import parity
from stl_deploy.pipeline.artifacts import MORE, ParityBench, open_runner, write
from stl_deploy.pipeline.energy import FILE as ENERGY
from stl_deploy.pipeline.energy import energy as count_energy
from stl_deploy.pipeline.export import manifest
from stl_deploy.pipeline.tradeoff import JSON as TRADEOFF
from stl_deploy.pipeline.tradeoff import KEPT, Tradeoff, ann_point
from stl_deploy.report import run_report as reporting
from stl_deploy.report.text.advice import with_commands
from stl_deploy.report.text.check import show_fold
from stl_deploy.report.text.energy import show as show_energy
from stl_deploy.report.text.run_summary import commands, verdict
from stl_deploy.runs.ann_twin import keep_twin, kept_frames, measure_kept, sees_sums
from stl_deploy.runs.folded_run import FoldedRun, fold_run
from stl_deploy.runs.frontier import keep_frontier, with_frontier
from stl_deploy.runs.inputs import LabelledInput, encode_split
from stl_deploy.runs.manifest import mark_under_way
from stl_deploy.runs.source import TEST_INPUT
from stl_deploy.runs.train import fit, size_sentence
from stl_deploy.training.pretrained.unpacking import configuration, unpack
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, MANIFEST, METRICS, MODEL
from stl_deploy.training.run_folder import TWIN, forget_results, refuse_replacing

INTEGERS = "Loihi integers (our model)"
LAVA = "Lava (CPU simulation)"
_CALIBRATION = 512
_RECORDED_VALUES = 100_000_000
"""Spikes of all layers that are kept at once for the comparison; it bounds the samples verified."""
_CONNECTIONS = 2_000_000


@dataclass(frozen=True)
class RunResult:
    """The run folder, and its results."""

    run_dir: Path
    parity: parity.ParityTable
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return {"run": str(self.run_dir), "verified": self.parity.as_dict(), "seconds": self.seconds}


@named_options(RunOptions)
def run(
    config: RunConfig,
    run_dir: Path,
    *,
    options: RunOptions | None = None,
    data: Dataset | None = None,
    say: Console = QUIET,
    **keywords: Unpack[RunKeywords],
) -> RunResult:
    """Run all steps into ``run_dir``; with ``resume`` a finished training is not repeated.

    A folder that holds a training is refused unless ``resume`` or ``overwrite`` is given.
    options: an options object, or its fields as keywords. twin: also train the ANN of the same topology once, into
    ``run_dir/twin``, to compare at equal accuracy; ``kept``: use the existing one, whatever its recipe. frontier: also
    train three narrower ANNs once, into ``run_dir/frontier``; not with ``kept``. data: the loaded dataset of a finished
    training.
    Raises InputError or ConfigError for an invalid run. After the folder is complete, raises ParityError if the torch
    network, the graph and the ONNX model differ in a spike on an exact grid, or Lava and our integer model do;
    ToolError if an installed Lava fails (the folder then has the integer model's results).
    """
    options = options or RunOptions(**keywords)
    if config.train.mode == "ann":
        raise InputError("an ANN has no spikes to deploy; 'run' takes mode stl, sl or tl, 'train' takes ann too")
    refuse_replacing(run_dir, resume=options.resume, overwrite=options.overwrite)
    install.require("matplotlib")
    with alone_in(run_dir):
        return _run(config, run_dir, options, data, say)


def _run(config: RunConfig, run_dir: Path, options: RunOptions, data: Dataset | None, say: Console) -> RunResult:
    start = time.perf_counter()
    if not (options.resume and _trained(config, run_dir)):
        fit(config, run_dir, resume=options.resume, overwrite=not options.resume, say=say)
    forget_results(run_dir)
    mark_under_way(run_dir)
    say.step("Folding BatchNorm, pooling and voting into the graph")
    folded = fold_run(run_dir, run_dir / "net.nir", data=data)
    show_fold(folded, say.details)
    test = keep_test_input(folded, run_dir)
    bench, netx, lava_problem = _run_all(folded, test, run_dir, options.lava, say)
    table = parity.ParityTable(bench.report, folded.proofs, test.x.shape[1], by_step=test.labels.ndim == 2)
    write_json(run_dir / parity.FILE, table.as_dict())
    parity.show(table, say.details)
    energy = _energy(folded, test, run_dir, options, say)
    _write_manifest(folded, netx, run_dir)
    say.step("Report")
    reporting.report(run_dir, say=say.details)
    table.report.require()
    if lava_problem is not None:
        raise lava_problem
    seconds = time.perf_counter() - start
    say.details.say("next:")
    for command in commands(run_dir):
        say.details.say(f"  {command}")
    say.say()
    for line in verdict(run_dir, table, energy.verdict, seconds):
        say.say(line)
    return RunResult(run_dir, table, seconds)


def _energy(folded: FoldedRun, test: LabelledInput, run_dir: Path, options: RunOptions, say: Console) -> EnergyReport:
    """Compute counts, joules, the twin's zeros, and accuracy against energy over T."""
    program, count = folded.program, test.x.shape[1]
    kept, folder = None, run_dir / TWIN
    if options.twin and test.labels.ndim == 2:
        say.details.say("no ANN twin: labels are of each step, and an ANN sees one")
    elif options.twin:
        if options.twin is True:  # not "kept": the twin that lies there is used, whatever its recipe
            keep_twin(folded.config, run_dir, say)
            if options.frontier:
                keep_frontier(folded.config, run_dir, say)
        kept = measure_kept(program, folder, folded.data.test, count)
        kept = replace(kept, summed=sees_sums(folded.config))
    say.step("Energy: exact counts, modelled joules")
    source = f"{folded.config.dataset.name}, {counted(count, 'test sample')}"
    energy = count_energy(program, test.x, EnergyOptions(), labels=test.labels, twin=kept, source=source)
    energy = with_commands(energy, run_dir, None, is_run=True)
    if kept is not None:
        frames = kept_frames(folder, folded.data.test, count)
        samples, share = (frames.x, frames.labels), check_margin(MARGIN)
        energy = with_frontier(energy, run_dir, kept, program, samples, share, folded.data.test)
    write_json(run_dir / ENERGY, energy.as_dict())
    show_energy(energy, say.details)
    twin = () if kept is None else (ann_point(KEPT, program, kept, energy.tried[0].samples),)
    write_json(run_dir / TRADEOFF, Tradeoff((*energy.tried, *twin)).as_dict())
    return energy


def _trained(config: RunConfig, run_dir: Path) -> bool:
    """Return whether the folder holds the finished training of this very configuration, complete or completable."""
    kept, model, checkpoint, metrics = ((run_dir / name).is_file() for name in (CONFIG, MODEL, CHECKPOINT, METRICS))
    return kept and model and (metrics or not checkpoint) and _same(load_config(run_dir / CONFIG), config)


def _same(kept: RunConfig, config: RunConfig) -> bool:
    """Return whether a run folder's configuration equals this one; it also holds its own data's hash."""
    return kept == config.with_values(dataset={"sha256": kept.dataset.sha256, "path": kept.dataset.path})


def keep_test_input(folded: FoldedRun, run_dir: Path) -> LabelledInput:
    """Keep the test samples, as many as fit, in the run folder for later commands."""
    count = min(len(folded.data.test), folded.program.samples_within(_RECORDED_VALUES, folded.config.time_steps))
    test = encode_split(folded.config, folded.data.test, count)
    write_npz(run_dir / TEST_INPUT, {"x": test.x, "y": test.labels})
    return test


def _run_all(
    folded: FoldedRun, test: LabelledInput, run_dir: Path, lava: bool, say: Console
) -> tuple[ParityBench, dict[str, Any], StlDeployError | None]:
    """Run the network and its artifacts; return the manifest's facts of net.net, and Lava's error."""
    say.step(f"Exporting, reading back, and running {counted(test.x.shape[1], 'test sample')}")
    bench = ParityBench(folded.program, test.x, test.labels, name=parity.REFERENCE)
    bench.add("torch, folded", _run_torch(folded.folded.network, test.x), required=folded.exact)
    onnx, path = find_format("onnx"), run_dir / "net.onnx"
    write(folded.program, onnx, path, origin={"source": folded.file.name, "sha256": sha256(folded.file)})
    bench.artifact(path, onnx, "ONNX Runtime", required=folded.exact)
    if lava and _others_run(bench, say):
        bench.witnesses(say.details, required=folded.exact)
    trained = _run_torch(folded.trained, test.x)
    bench.add("torch, as trained", trained, required=False, note="before folding and rounding")
    netx, path = find_format("netx"), run_dir / "net.net"
    calibration = encode_split(folded.config, folded.data.train, _CALIBRATION).x
    try:
        facts = write(folded.program, netx, path, calibration=lambda: calibration, say=say.details)
    except UnsupportedError as error:
        path.unlink(missing_ok=True)
        say.warn(f"net.net was not written, since Loihi cannot hold this network: {error}")
        facts = {"target": "netx", "node": error.node, "unsupported": error.reason, "remedy": error.remedy}
        return bench, facts, None
    bench.artifact(path, netx, INTEGERS, note="8-bit weights, post-training")
    return bench, facts, _run_lava(bench, path, lava, say)


def _others_run(bench: ParityBench, say: Console) -> bool:
    """Return whether simulators that set up every connection separately finish within seconds."""
    if bench.connections > _CONNECTIONS:
        say.details.say(
            f"simulators besides Lava are left to {verb('verify')}: they set up each of "
            f"{bench.connections:,} connections; a run takes at most {_CONNECTIONS:,}"
        )
    return bench.connections <= _CONNECTIONS


def _run_lava(bench: ParityBench, path: Path, wanted: bool, say: Console) -> ToolError | None:
    """Run the .net file on real Lava, if installed; print which backend ran, and return any error."""
    kind = find_runner("lava")
    reason = why_unavailable(kind) if wanted else "left out as asked"
    if reason is not None:
        say.details.say(f"simulated on our integer model of Lava, not on Lava itself ({reason})")
        return None
    samples = bench.within(MORE)
    say.say(f"simulating {samples} of {counted(leading(bench.x)[1], 'sample')} on {kind.description}")
    try:
        runner = open_runner(kind, path, bench.program, progress=now_and_then(say, "steps on Lava"))
        bench.compare(LAVA, runner, path, model=INTEGERS, samples=samples, note="lava.lib.dl.netx")
    except ToolError as error:
        say.warn(f"Lava failed; the report contains only our integer model:  {error}")
        return error
    return None


@torch.no_grad()
def _run_torch(network: Network | ProgramModule, x: Floats) -> Result:
    votes, recorded = network.cpu().eval().record(torch.from_numpy(x))
    return Result({"output": votes.numpy()}, {name: spikes.numpy() for name, spikes in recorded.items()})


def _write_manifest(folded: FoldedRun, netx: dict[str, Any], run_dir: Path) -> None:
    names = ["config.yaml", "model.safetensors", folded.file.name, "net.onnx", "net.net", TEST_INPUT]
    names += [METRICS, parity.FILE, ENERGY, TRADEOFF]
    contents = manifest(
        folded.program,
        [run_dir / name for name in names if (run_dir / name).is_file()],
        exact=folded.exact,
        grids=[grid.as_dict() for grid in folded.folded.grids],
        proofs=[proof.as_dict() for proof in folded.proofs],
        netx=netx,
    )
    write_json(run_dir / MANIFEST, contents)


def run_pretrained(
    name: str,
    run_dir: Path,
    *,
    data_dir: Path | None = None,
    overwrite: bool = False,
    lava: bool = True,
    twin: bool = True,
    say: Console = QUIET,
) -> RunResult:
    """Unpack the model ``name`` into ``run_dir``, then continue as `run` does.

    data_dir: folder of the dataset's files; None: download them. overwrite: replace a training in the folder.
    Raises InputError for an unknown model, and as `run`.
    """
    where = None if data_dir is None else str(data_dir)
    config = configuration(name, where)
    refuse_replacing(run_dir, resume=False, overwrite=overwrite)
    with alone_in(run_dir):
        say.step(f"Unpacking the ready-made model {name}")
        data = load_dataset(config.dataset)
        say.say(size_sentence(data))
        about = unpack(name, run_dir, where)
        say.say(f"trained by '{about.command}'; test accuracy {about.accuracy} on {about.accuracy.samples} samples")
        kept = RunOptions(resume=True, lava=lava, twin="kept" if twin else False)
        return run(config, run_dir, options=kept, data=data, say=say)
