"""Measure the gain of a joint decision (our reading): digits nets of several modes and seeds, joined.

    python examples/joint_decision.py -o runs/joint                    # 15 trainings of half a minute
    python examples/joint_decision.py -o runs/joint --seeds 1 --set train.epochs=2

Half of the digits are test images. For every seed an STL, an SL and a TL net decide together; and STL nets of different
seeds do, three at a time; with equal and with learned weights. The gain is counted against the member that validation
would have picked. Writes results.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from stl_deploy import verbs
from stl_deploy._util.console import Console
from stl_deploy._util.files import write_json

MODES = ("stl", "sl", "tl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    say = Console()
    members = {}
    for seed in range(options.seeds):
        for mode in MODES:
            members[mode, seed] = options.output / f"{mode}-{seed}"
            changes = ["dataset.test_fraction=0.5", f"train.mode={mode}", f"train.seed={seed}", *options.changes]
            done = verbs.train(verbs.configure("digits", changes), members[mode, seed], overwrite=True)
            say.say(f"{mode}, seed {seed}: {done['test']['accuracy']:.2%}")
    groups = {"STL, SL and TL": [[members[mode, seed] for mode in MODES] for seed in range(options.seeds)]}
    seeds = range(options.seeds)
    if options.seeds > 2:
        groups["STL, three seeds"] = [[members["stl", (s + i) % options.seeds] for i in range(3)] for s in seeds]
    results = [
        study(title, runs, weights, options.output)
        for title, runs in groups.items()
        for weights in ("equal", "learned")
    ]
    write_json(options.output / "results.json", results)
    for result in results:
        gains = [row["gain"] for row in result["joined"]]
        say.say(
            f"{result['members']}, {result['weights']}: gains {gains} of {result['samples']}, mean {mean(gains):+.1f}"
        )


def study(title: str, groups: list[list[Path]], weights: Any, folder: Path) -> dict[str, Any]:
    """Join each group; the gain is in test images, against the member of the best validation accuracy."""
    joined = []
    for number, runs in enumerate(groups):
        joint = verbs.join(
            runs, folder / f"{title.replace(', ', '-').replace(' ', '-')}-{weights}-{number}", weights=weights
        )
        picked = max(joint.members, key=lambda member: member.validation_accuracy)
        joined.append(
            {
                "weights": [round(member.weight, 4) for member in joint.members],
                "test": [member.test_accuracy for member in joint.members],
                "picked": picked.test_accuracy,
                "joint": joint.test_accuracy,
                "gain": round((joint.test_accuracy - picked.test_accuracy) * joint.test_samples),
            }
        )
    return {"members": title, "weights": weights, "samples": joint.test_samples, "joined": joined}


if __name__ == "__main__":
    main()
