"""The first recordings of N-MNIST, in MNIST's order, as a small dataset of the same layout.

    python examples/n_mnist/subset.py ~/.cache/stl-deploy/NMNIST data/n_mnist_subset

The first argument holds Train/<label>/*.bin and Test/<label>/*.bin; a file's number is its MNIST image's, from 1.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whole", type=Path)
    parser.add_argument("subset", type=Path)
    parser.add_argument("--train", type=int, default=1000, help="recordings of the training part")
    parser.add_argument("--test", type=int, default=100, help="recordings of the test part")
    options = parser.parse_args()
    for part, count in (("Train", options.train), ("Test", options.test)):
        files = sorted((options.whole / part).glob("[0-9]/*.bin"), key=lambda path: int(path.stem))[:count]
        if len(files) < count:
            parser.error(f"{options.whole / part}: {len(files)} recordings; at least {count} are needed")
        for path in files:
            place = options.subset / part / path.parent.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
        print(f"{options.subset / part}: {count} recordings")


if __name__ == "__main__":
    main()
