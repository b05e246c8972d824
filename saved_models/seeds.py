"""Trains the reference models with five seeds, without dropout and with it, and judges each way to predict.

    python saved_models/seeds.py NAME ... [--data FOLDER] [--seeds 5] [--table]

Each training is a run under runs/references, which continues if it was stopped, and a few rows of
benchmarks/results/references.csv. When all seeds are there, the networks with dropout are judged as an ensemble
too. `--table` trains nothing and prints the table of the README from the rows.
"""

import argparse
import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from references import REFERENCES

from dropzoo import serving, training
from dropzoo.common.files import whole_file
from dropzoo.runs.data import judged_images
from dropzoo.runs.details import Details
from dropzoo.runs.evaluation import LogProbabilities, log_of_mean, log_probabilities, score
from dropzoo.runs.run import train_run
from dropzoo.runs.scores import Scores
from dropzoo.runs.ways import ONE, SAMPLES_T, judge
from dropzoo.sweep.stats import interval, interval_text

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "references.csv"
NUM_SAMPLES = 30
VARIANTS = ("without dropout", "with dropout")
Row: TypeAlias = dict[str, str]


def folder_of(name: str, seed: int, dropout: bool) -> Path:
    """Returns the folder of a run."""
    return Path("runs/references") / name / f"{'dropout' if dropout else 'none'}-{seed}"


def trained(name: str, data: Path | None, seed: int, dropout: bool) -> tuple[keras.Model, training.Data]:
    """Returns the network of a seed and its data; it is trained if it is not there yet."""
    config = REFERENCES[name].run(data, seed, dropout)
    model, _ = train_run(config, folder_of(name, seed, dropout), steps_per_execution=16)
    return model, config.load_data()


def rows_of(name: str, data: Path | None, seed: int, dropout: bool) -> list[Row]:
    """Trains a network and returns a row for each way to predict."""
    model, loaded = trained(name, data, seed, dropout)
    rows = []
    for way, scores in judge(model, loaded, NUM_SAMPLES).items():
        found: dict[str, Any] = dict(scores.figures())
        if way in (ONE, SAMPLES_T) and loaded.info.task == "segmentation":
            sampler = serving.MonteCarlo(model, num_samples=NUM_SAMPLES) if way == SAMPLES_T else None
            found |= objects(log_probabilities(model, sampler), loaded)
        rows.append(row(name, VARIANTS[dropout], way, str(seed), found))
    return rows


def ensemble_row(name: str, data: Path | None, seeds: int) -> Row:
    """Returns the row of the ensemble of the networks with dropout, without temperature."""
    members = [trained(name, data, seed, True)[0] for seed in range(seeds)]
    loaded = REFERENCES[name].run(data).load_data()
    predict = log_of_mean(serving.Ensemble(members))
    found: dict[str, Any] = dict(score(predict, judged_images(loaded), Scores(loaded.info)).figures())
    if loaded.info.task == "segmentation":
        found |= objects(predict, loaded)
    return row(name, f"ensemble of {seeds}", "mean of members", "all", found)


def objects(predict: LogProbabilities, data: training.Data) -> dict[str, float]:
    """Returns the F1 score of the objects of the last class on the test images."""
    details = Details(data.info, ("object",), None)
    for images, labels in judged_images(data):
        details.add(labels, predict(images))
    return {"object_f1": details.objects[-1].f1 or 0.0}


def row(name: str, variant: str, way: str, seed: str, found: Mapping[str, Any]) -> Row:
    """Returns a row of the file."""
    kept = ("accuracy", "mean_iou", "object_f1", "nll", "ece", "aurc")
    figures = {key: f"{found[key]:.5f}" for key in kept if found.get(key) is not None}
    return {"model": name, "variant": variant, "way": way, "seed": seed, **figures}


def read() -> list[Row]:
    """Returns the rows of the file; none if there is no file."""
    if not RESULTS.exists():
        return []
    with open(RESULTS, newline="") as file:
        return list(csv.DictReader(file))


def write(rows: list[Row]) -> None:
    """Writes the rows, whole or not at all."""
    names = ["model", "variant", "way", "seed", "accuracy", "mean_iou", "object_f1", "nll", "ece", "aurc"]
    with whole_file(RESULTS) as unfinished, open(unfinished, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def summary(rows: list[Row], name: str) -> dict[str, dict[str, str]]:
    """Returns, for each variant and way of a model, the mean of each figure over seeds with its 95 % interval."""
    found: dict[str, dict[str, str]] = {}
    own = [each for each in rows if each["model"] == name]
    for variant, way in dict.fromkeys((each["variant"], each["way"]) for each in own):
        same = [each for each in own if (each["variant"], each["way"]) == (variant, way)]
        figures = {}
        for key in ("accuracy", "mean_iou", "object_f1", "nll", "ece"):
            values = [float(each[key]) for each in same if each.get(key)]
            if values:
                figures[key] = interval_text(interval(values))
        found[f"{variant}, {way}"] = figures
    return found


def print_table(names: list[str]) -> None:
    """Prints the table of the README."""
    rows = read()
    for name in names:
        for way, figures in summary(rows, name).items():
            print(f"| `{name}` | {way} | {', '.join(f'{key} {text}' for key, text in figures.items())} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(REFERENCES), help=", ".join(REFERENCES))
    parser.add_argument("--data", type=Path, help="folder of the data sets that are not part of the project")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="print the table of the README, train nothing")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(REFERENCES)):
        parser.error(f"choose from {', '.join(REFERENCES)}. Received: {', '.join(unknown)}")
    if arguments.table:
        print_table(arguments.names)
        return
    for name in arguments.names:
        for seed in range(arguments.seeds):
            for dropout in (True, False):
                known = [(each["model"], each["variant"], each["seed"]) for each in read()]
                if (name, VARIANTS[dropout], str(seed)) not in known:
                    rows = rows_of(name, arguments.data, seed, dropout)
                    write([*read(), *rows])  # another process may have written in the meantime
                    keras.backend.clear_session()
        ensemble = ensemble_row(name, arguments.data, arguments.seeds)
        write([*(each for each in read() if (each["model"], each["seed"]) != (name, "all")), ensemble])
    print_table(arguments.names)


if __name__ == "__main__":
    main()
