"""Repeats the demo's trainings with ten seeds, and counts in how many of them dropout and sampling pay.

    python benchmarks/demo.py [--seeds 10] [--only unet]

Each seed is a few rows of benchmarks/results/demo.csv, which is written as the seed ends; a stopped run goes on.
"""

import argparse
import csv
import dataclasses
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _shared import write_csv
from dropzoo.demo import NUM_SAMPLES, RUNS
from dropzoo.runs.config import RunConfig
from dropzoo.runs.ways import judge
from dropzoo.sweep.workbench import Workbench

RESULTS = Path(__file__).parent / "results" / "demo.csv"


def rows_of(name: str, config: RunConfig, seed: int) -> list[dict[str, object]]:
    """Trains both variants of a run with a seed; returns a row for each way to predict."""
    rows: list[dict[str, object]] = []
    bench = Workbench()
    for title, dropout in {"without dropout": None, "with dropout": config.dropout}.items():
        run = dataclasses.replace(config, dropout=dropout, seed=seed)
        outcome = bench.train(run)
        data = run.load_data()
        for way, scores in judge(bench.model, data, NUM_SAMPLES).items():
            found = scores.figures()
            score = found.get("mean_iou", found["accuracy"])
            figures = {"score": score, "nll": found["nll"], "ece": found["ece"], "aurc": found["aurc"]}
            trained = outcome.train.get("mean_iou", outcome.train["accuracy"])
            rounded = {key: round(float(value or 0), 5) for key, value in {"train": trained, **figures}.items()}
            rows.append({"run": name, "seed": seed, "way": f"{title}, {way}", **rounded})
    return rows


def counts(rows: list[dict[str, str]], name: str) -> str:
    """Returns in how many seeds of a run dropout has the lower NLL, and calibrated samples the lowest."""
    seeds = sorted({row["seed"] for row in rows if row["run"] == name})
    lower, lowest = 0, 0
    for seed in seeds:
        nll = {row["way"]: float(row["nll"]) for row in rows if (row["run"], row["seed"]) == (name, seed)}
        lower += nll["with dropout, one pass"] < nll["without dropout, one pass"]
        lowest += "samples, temperature" in min(nll, key=lambda way: nll[way])
    return (
        f"{name}: the NLL of one pass is lower with dropout in {lower} of {len(seeds)} seeds; samples with "
        f"temperature have the lowest of all in {lowest}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=list(RUNS), nargs="+", default=list(RUNS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        for name in arguments.only:
            rows = list(csv.DictReader(arguments.out.open())) if arguments.out.exists() else []
            if not any((row["run"], row["seed"]) == (name, str(seed)) for row in rows):
                write_csv(arguments.out, [*rows, *rows_of(name, RUNS[name], seed)])
                print(f"{name}, seed {seed}", flush=True)
    for name in arguments.only:
        print(counts(list(csv.DictReader(arguments.out.open())), name))


if __name__ == "__main__":
    main()
