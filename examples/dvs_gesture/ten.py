"""Ten recordings of DVS128 Gesture, in the layout that the preset reads: a smoke test, not a training.

    python examples/dvs_gesture/ten.py dvs_gesture_10samples.zip data/dvs_ten

The zip holds 1.bs2 to 10.bs2: the first 1.45 s of one recording of each of the classes 1 to 10, as slayerPytorch
distributes them for its tests, in records of 40 bits. Of each, the first and the second 0.5 s become two recordings for
training, and the rest one for the test.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np

from stl_deploy.data.events import aer40
from stl_deploy.errors import StlDeployError

_SHAPE = (2, 128, 128)
_MICROSECONDS = 500_000
"""Length of a recording used in training."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        lay_out(options.recordings, options.folder)
    except (OSError, KeyError, zipfile.BadZipFile, StlDeployError) as error:
        parser.error(f"{options.recordings}: expected a zip file of 1.bs2 to 10.bs2; {error}")


def lay_out(recordings: Path, folder: Path) -> None:
    """Write the parts of each recording into ``folder``; raises what zipfile does, InputError for damaged events."""
    with zipfile.ZipFile(recordings) as archive:
        for number in range(1, 11):
            name = f"{number}.bs2"
            events = aer40(archive.read(name), _SHAPE, f"{recordings}: {name}")
            p, y, x = np.unravel_index(events.where, _SHAPE)
            table = np.stack([x, y, p, events.when / 1000], 1)
            for index, part in enumerate(("ibmGestureTrain", "ibmGestureTrain", "ibmGestureTest")):
                place = folder / part / f"user{number:02}_{index}"
                place.mkdir(parents=True, exist_ok=True)
                mine = np.minimum(events.when // _MICROSECONDS, 2) == index
                np.save(place / f"{number - 1}.npy", table[mine])  # the name is the class, from 0
            print(f"class {number}: {len(table):,} events")


if __name__ == "__main__":
    main()
