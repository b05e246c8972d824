"""Calibrated intervals of counts and areas of nuclei: how often they hold, and how long they are.

    python benchmarks/nuclei_intervals.py FOLDER --work runs/nuclei_intervals
    python benchmarks/nuclei_intervals.py FOLDER --work runs/nuclei_intervals --show

FOLDER has `images/` and `masks/`, such as the 160 images of the Data Science Bowl 2018 (CC0). A U-Net is trained
on four fifths of them, five times, so that each image is predicted by a network that has not seen it. Over
`--splits` random halves, intervals are calibrated on one half and tried on the other. They must hold in 0.87 to
0.93 of the images, and should be a fifth shorter than split conformal intervals on the bare number.

The trainings take hours. Stop the script at any time: the same command goes on where it was. `--show` only shows
what the parts that are done say. Results: benchmarks/results/nuclei_intervals.csv.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from _intervals import over_splits
from _shared import write_csv
from dropzoo import training
from dropzoo.common.files import whole_file
from dropzoo.predictions.measuring import Measure, masks_of_samples, numbers_of
from dropzoo.runs.config import RunConfig
from dropzoo.runs.predictors import load_predictor
from dropzoo.runs.run import train_run

RESULTS = Path(__file__).parent / "results" / "nuclei_intervals.csv"
FOLDS = 5
NUMBERS = ("count", "area")
DROPOUT = {"bottleneck*": "spatial_dropout2d:0.5", "decoder*": "spatial_dropout2d:0.2"}


def config_of(arguments: argparse.Namespace, fold: int) -> RunConfig:
    """The training of one part: the images of the part are the validation images."""
    return RunConfig(
        model="unet",
        data=str(arguments.folder),
        dropout=DROPOUT,
        options={"depth": 3, "filters": 16},
        fold=(fold, FOLDS),
        test_split=0.0,
        epochs=arguments.epochs,
        batch_size=8,
        learning_rate=2e-3,
        augment="flip_horizontal,flip_vertical,rotation=15,crop=128",
    )


def numbers_of_part(arguments: argparse.Namespace, fold: int) -> np.ndarray | None:
    """The estimate, its deviation and the truth, `(images, numbers, 3)`; None if the part is not done."""
    path = arguments.work / f"fold{fold}.npz"
    if path.exists():
        return np.load(path)["numbers"]
    if arguments.show:
        return None
    config = config_of(arguments, fold)
    train_run(config, arguments.work / f"fold{fold}")  # goes on where it was stopped
    predictor = load_predictor(
        arguments.work / f"fold{fold}", arguments.samples, votes=True, sampling="fixed", say=lambda text: None
    )
    how, found = Measure(), []
    for image, truth in held_out(config):
        mean, samples = masks_of_samples(predictor, image)
        estimate, known, *drawn = (
            numbers_of(how.objects((each > 0).astype(np.uint8), 1, image), how) for each in (mean, truth, *samples)
        )
        found.append([[estimate[n], float(np.std([each[n] for each in drawn])), known[n]] for n in NUMBERS])
    with whole_file(path) as unfinished:
        np.savez(unfinished, numbers=np.array(found))
    return np.array(found)


def held_out(config: RunConfig) -> list[tuple[np.ndarray, np.ndarray]]:
    """The images of a part, in [0, 1], with their masks."""
    data = training.load_data(config.data, fold=config.fold, test_split=0.0, batch_size=1, augment=False)
    batches: tf.data.Dataset = data.validation
    return [(images.numpy()[0], masks.numpy()[0].reshape(images.shape[1:3])) for images, masks in batches]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/nuclei_intervals"))
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--show", action="store_true", help="train nothing, show what is done")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    parts = [part for fold in range(FOLDS) if (part := numbers_of_part(arguments, fold)) is not None]
    if not parts:
        parser.error(f"no part is done in {arguments.work}")
    numbers = np.concatenate(parts)
    rows = []
    for i, name in enumerate(NUMBERS):
        found = over_splits(numbers[:, i], arguments.splits)
        row: dict[str, object] = {"number": name, "images": len(numbers), "parts": len(parts)}
        row |= {"epochs": arguments.epochs, **{key: round(float(value), 3) for key, value in found.items()}}
        row["must"] = bool(0.87 <= found["covered"] <= 0.93)
        row["aim"] = bool(found["width"] <= 0.8 * found["bare"])
        rows.append(row)
        print(rows[-1])
    if len(parts) == FOLDS and not arguments.show:
        write_csv(arguments.results, rows)


if __name__ == "__main__":
    main()
