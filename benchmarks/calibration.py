"""Calibration: do the guarantees hold, what do they cost, and is a setting of the search ever worse than one pass?

    python benchmarks/calibration.py
    python benchmarks/calibration.py --what guarantees sets --data fashion_mnist --fashion FOLDER
    python benchmarks/calibration.py --data nuclei --nuclei runs/nuclei_intervals

The models are the reference models, and the images are their test images: `digits` (355), `fashion_mnist` (10,000,
if its files are there), `digit_scenes` (`--scenes` new scenes of test digits), and `dsb2018_nuclei` (32, for
`settings` alone). For `guarantees` and `outer`, the 160 images of `nuclei` are those of nuclei_intervals.py. Each
is predicted by the one of its five networks that has not seen it. The network for the 2,000 test images of
`cifar10_jpeg` is MobileNetV2 of keras.applications, trained without dropout; `retrofit` adds dropout to it for
`settings`. Otherwise nothing is trained except the one epoch that the search is timed against.

- `guarantees`: for each guarantee and level, the mean risk on new images over `--splits` random splits into
  held-out and new images. It must be at most the level plus two standard errors over the splits, and should be at
  least 0.8 of the level; the column `aim` says where this does not apply because all images are kept. For `error`,
  which holds with a confidence of 0.9, this says less than the promise.
- `sets`: the mean size of class sets, beside those of MAPIE, TorchCP and keras-proba (`pip install mapie torchcp
  keras-proba`) from the same probabilities.
- `outer`: the area of outer masks from samples, divided by the area of masks with the same guarantee from one pass
  with one threshold for all images, in images that hold the class. The note has the area in the other images.
- `search`: seconds for the search over sites, and for one epoch of training on the data's training images.
- `overfitted`: the NLL of the chosen setting minus that of one pass, both with and both without a temperature, for
  small CNNs that were trained on 300 noisy digits for `--epochs` epochs with dropout. One pass is overconfident
  there.
- `latency`: seconds of `predict_mc` of an export with a calibration (temperature and a promise) divided by those
  without one, batches of 8; and seconds of an export of five members divided by those of five exports of one.
- `settings`: NLL and ECE of the setting that the search chose, minus those of one pass with its temperature, and
  the standard error of the difference; on clean images and on corrupted ones. Half of the test images, at least 20
  and at most 1,500, serve the search; the others, at most 1,500, are judged.

Results: benchmarks/results/calibration.csv. Rows that are in the file are measured again only with `--again`.
Predictions are kept in `--cache`. The folder `calibrating` has a file for each measurement.
"""

import argparse
import csv
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from calibrating.data import ROOT, Row
from calibrating.guarantees import guarantees
from calibrating.latency import latency
from calibrating.outer import outer
from calibrating.overfitted import overfitted
from calibrating.search import search
from calibrating.sets import sets
from calibrating.settings import settings

from _shared import write_csv

RESULTS = Path(__file__).parent / "results" / "calibration.csv"
#: The measurements of each data set; None for all of them.
DATA: dict[str, tuple[str, ...] | None] = {
    "digits": None,
    "fashion_mnist": None,
    "digit_scenes": None,
    "nuclei": ("guarantees", "outer"),
    "dsb2018_nuclei": ("settings",),
    "cifar10_jpeg": ("settings",),
}
#: Functions of the name of the data and the arguments that yield cases and how to measure them.
WHAT: dict[str, Callable[[str, argparse.Namespace], Iterator[tuple[str, Callable[[], Row]]]]] = {
    each.__name__: each for each in (guarantees, sets, outer, search, settings, overfitted, latency)
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Calibration: guarantees, their cost, and the search.")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--scene-seed", type=int, default=1, help="other scenes: `outer` names it in the case")
    parser.add_argument("--epochs", type=int, default=100, help="of the overfitted networks")
    parser.add_argument("--fashion", default=str(ROOT.parent / "shared" / "data" / "fashion_mnist"))
    parser.add_argument("--cifar", default=str(ROOT.parent / "shared" / "data" / "cifar10_jpeg"))
    parser.add_argument("--dsb2018", default=str(ROOT.parent / "shared" / "data" / "dsb2018_nuclei"))
    parser.add_argument("--nuclei", default="runs/nuclei_intervals", help="the --work of nuclei_intervals.py")
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "dropzoo-calibration"))
    parser.add_argument("--again", action="store_true", help="measure rows again that are in the results")
    arguments = parser.parse_args()
    rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    for name in arguments.data:
        folders = {"fashion_mnist": arguments.fashion, "nuclei": arguments.nuclei, "cifar10_jpeg": arguments.cifar}
        folders["dsb2018_nuclei"] = arguments.dsb2018
        needed = Path(folders.get(name, ROOT))
        if not needed.exists():
            print(f"{name}: skipped, since {needed} does not exist")
            continue
        for what in arguments.what:
            if what not in (DATA[name] or WHAT):
                continue
            for case, measure in WHAT[what](name, arguments):
                same = [row for row in rows if (row["data"], row["what"], row["case"]) == (name, what, case)]
                if same and not arguments.again:
                    continue
                rows = [row for row in rows if row not in same]
                rows.append({"data": name, "what": what, "case": case, **measure(), "samples": arguments.samples})
                print(rows[-1], flush=True)
                write_csv(RESULTS, rows)


if __name__ == "__main__":
    main()
