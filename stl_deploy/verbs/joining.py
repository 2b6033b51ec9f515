"""The verb join: merge several trained runs into one graph (our reading of the paper's joint decision)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from typer import Argument, Option

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import make_folder, sha256, write_json, write_npz
from stl_deploy._util.json_twin import JsonTwin
from stl_deploy._util.remedies import require_one_of
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.nir.write import to_own_graph
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import accuracy
from stl_deploy.graph.run import CHUNK, Result, run
from stl_deploy.passes.join import check_members, merge
from stl_deploy.pipeline.export import manifest
from stl_deploy.runs.folded_run import FoldedRun, fold_run
from stl_deploy.runs.inputs import LabelledInput, encode_split
from stl_deploy.runs.source import TEST_INPUT
from stl_deploy.training.run_files import MODEL
from stl_deploy.training.run_folder import forget_results
from stl_deploy.verbs.arguments import RUNS_CODE, As

Weights = Literal["equal", "learned"]
FILE = "joint.json"

_LEARNING_STEPS = 500
"""Of the descent that learns members' weights."""


@dataclass(frozen=True)
class Member:
    """One member run: its mode and seed, its weight, and its own accuracy."""

    run: str
    mode: str
    seed: int
    weight: float
    validation_accuracy: float
    test_accuracy: float


@dataclass(frozen=True)
class Joint(JsonTwin):
    """The members, the joint decision's accuracies, and their number of samples (all measured on the graphs)."""

    output: str
    weights: Weights
    members: tuple[Member, ...]
    validation_accuracy: float
    test_accuracy: float
    validation_samples: int
    test_samples: int
    exact: bool


def join(
    runs: Annotated[
        Sequence[Path],
        As(list[Path]),
        RUNS_CODE,
        Argument(metavar="RUN...", help="Two or more run folders with the same data."),
    ],
    output: Annotated[Path, Option("-o", "--output", metavar="DIR", help="Folder for the joint network.")],
    *,
    weights: Annotated[
        Weights, Option(help="Weights of the members' votes: equal, or learned on the validation split.")
    ] = "equal",
    say: Console = QUIET,
) -> Joint:
    """Fold trained runs, merge their graphs, and write net.nir, test.npz, joint.json and manifest.json to ``output``.

    The folder is a source for export, verify, simulate and energy. weights: weights of the members' votes, ``equal`` or
    ``learned`` on the validation split (which also picked each member's epoch) from mean votes over time, or from the
    votes of each step if labels are per step.
    Raises InputError for fewer than two runs, or runs that differ in data, time steps, reset, readout or input grid.
    """
    require_one_of(weights, Weights, "weights")
    if len(runs) < 2:
        raise InputError(f"expected two runs or more to join; found {len(runs)}")
    if (output / MODEL).exists():
        raise InputError(f"{output}: holds a trained run; name another folder for the joint one")
    with temporary_folder() as folder:
        members = [fold_run(path, folder / f"{number}.nir") for number, path in enumerate(runs)]
    _check_same_data(runs, members)
    programs = [member.program for member in members]
    check_members(programs)
    first = members[0]
    validation, test = (encode_split(first.config, split) for split in (first.data.validation, first.data.test))
    counts = f"{len(validation.labels)} validation and {len(test.labels)} test samples"
    say.step(f"Running {len(members)} members on {counts}")
    validated, tested = ([run(p, data.x, chunk=CHUNK) for p in programs] for data in (validation, test))
    shares = [1 / len(members)] * len(members)
    if weights == "learned":
        shares = _learned(validated, validation.labels)
    merged = to_own_graph(merge(programs, shares))
    program = merged.program
    joint = Joint(
        str(output),
        weights,
        tuple(
            Member(
                str(path),
                member.config.train.mode,
                member.config.train.seed,
                share,
                _right(member.program, on_validation, validation),
                _right(member.program, on_test, test),
            )
            for path, member, share, on_validation, on_test in zip(
                runs, members, shares, validated, tested, strict=True
            )
        ),
        _right(program, run(program, validation.x, chunk=CHUNK), validation),
        _right(program, run(program, test.x, chunk=CHUNK), test),
        len(validation.labels),
        len(test.labels),
        all(proof.exact for proof in prove_exact(program)),
    )
    forget_results(output)
    make_folder(output)
    write_nir(merged.graph, output / "net.nir")
    write_npz(output / TEST_INPUT, {"x": test.x, "y": test.labels})
    write_json(output / FILE, joint.as_dict())
    sources = {str(path): sha256(path / MODEL) for path in runs}
    contents = manifest(program, [output / "net.nir", output / TEST_INPUT], joint=joint.as_dict(), sources=sources)
    write_json(output / "manifest.json", contents)
    _show(joint, say)
    return joint


def _check_same_data(runs: Sequence[Path], members: Sequence[FoldedRun]) -> None:
    """Refuse other data or splits, in which one member's training samples could judge another."""
    hashed = members[0].config.dataset.sha256 is not None
    elsewhere = {"data_dir", "path"} if hashed else {"data_dir"}
    wanted = members[0].config.dataset.model_dump(exclude=elsewhere)
    for path, member in zip(runs, members, strict=True):
        other = member.config.dataset.model_dump(exclude=elsewhere)
        differ = [key for key, value in wanted.items() if other[key] != value]
        if differ:
            raise InputError(
                f"{path}: expected dataset.{differ[0]} {wanted[differ[0]]!r}, as {runs[0]} has it; found "
                f"{other[differ[0]]!r}; join runs of the same data, split and encoding"
            )


def _learned(results: Sequence[Result], labels: NDArray[np.int64]) -> list[float]:
    """Learn weights from the members' votes ``[T, B, classes]``."""
    if labels.ndim == 2:  # of each step
        votes = [result.y.swapaxes(0, 1).reshape(labels.size, -1) for result in results]
    else:
        votes = [result.y.mean(0, dtype=np.float64) for result in results]
    return learn_weights(torch.from_numpy(np.stack(votes)), torch.from_numpy(labels.ravel()))


def _right(program: Program, result: Result, data: LabelledInput) -> float:
    share = accuracy(program, result, data.labels)
    if share is None:
        raise InputError("expected a network of one output [T, B, classes] to join; found another")
    return share


def _show(joint: Joint, say: Console) -> None:
    rows = [
        [m.run, m.mode, str(m.seed), f"{m.weight:.3f}", f"{m.validation_accuracy:.2%}", f"{m.test_accuracy:.2%}"]
        for m in joint.members
    ]
    rows.append(["joint", "", "", "", f"{joint.validation_accuracy:.2%}", f"{joint.test_accuracy:.2%}"])
    say.table(["member", "mode", "seed", "weight", "validation", "test"], rows)
    best = max(member.test_accuracy for member in joint.members)
    gain = round((joint.test_accuracy - best) * joint.test_samples)
    say.say(
        f"joint decision (our reading), {joint.weights} weights: {gain:+d} of {joint.test_samples} test samples "
        "against the best member (measured)"
    )
    say.say("every float32 sum is proved exact" if joint.exact else "not every float32 sum is proved exact")
    place = shlex.quote(joint.output)
    say.say(f"written: {joint.output} (net.nir, {TEST_INPUT}, {FILE}, manifest.json)")
    say.say(f"next:  stl-deploy export {place} --to onnx -o {place}/net.onnx   stl-deploy energy {place}")


def learn_weights(scores: Tensor, labels: Tensor) -> list[float]:
    """Learn members' weights, nonnegative with sum 1, from their scores ``[members, N, classes]``.

    They minimise the mean squared error between joint scores and one-hot labels ``[N]`` (the paper's loss), by gradient
    descent on a softmax from equal weights; the same input gives the same weights.
    """
    targets = functional.one_hot(labels, scores.shape[2]).to(torch.float64)
    # softmax of zeros: equal weights, and no weight can become negative
    logits = torch.zeros(len(scores), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    with torch.enable_grad():
        for _ in range(_LEARNING_STEPS):
            joint = torch.einsum("m,mnc->nc", logits.softmax(0), scores.detach().to(torch.float64))
            optimiser.zero_grad()
            functional.mse_loss(joint, targets).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return [float(weight) for weight in logits.detach().softmax(0)]
