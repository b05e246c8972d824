"""Trials an hour of the engine of `dropzoo sweep`, against building and tracing each trial anew.

    python benchmarks/sweep.py

Each round has 10 trials: one site set with five rates and two seeds. The one-trace engine starts each round
without any trace. Both engines run each trial, one after the other, in one process and on data that are loaded
already, so that a load on the machine slows both. The figures are medians over the rounds. Results:
benchmarks/results/sweep.csv.
"""

import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _shared import write_csv
from dropzoo.sweep.run import Space
from dropzoo.sweep.workbench import Workbench

RESULTS = Path(__file__).parent / "results" / "sweep.csv"
ROUNDS = 3
SHARED = {
    "models": ["simple_cnn"],
    "data": "digits",
    "sites": ["module?,dense*"],
    "rates": [0.1, 0.2, 0.3, 0.4, 0.5],
    "seeds": [0, 1],
    "learning_rate": 2e-3,
}
CASES = {
    "2 convolutions, 8x8, 300 images, 5 epochs": {
        "options": {"filters": (16, 32), "dense": (64,)},
        "limit": 300,
        "epochs": 5,
    },
    "4 convolutions, 8x8, 500 images, 5 epochs": {
        "options": {"filters": (16, 32), "convs_per_module": 2, "dense": (64,)},
        "limit": 500,
        "epochs": 5,
    },
}


def one_round(space: Space) -> tuple[float, float]:
    """Returns the seconds per trial of the one-trace engine, and of the engine that builds each trial anew."""
    trials = [trial for trial in space.trials() if not trial.is_baseline]
    spent = {True: 0.0, False: 0.0}
    benches = {reuse: Workbench(reuse=reuse) for reuse in spent}
    for bench in benches.values():
        for trial in trials:
            bench.load(trial.config)
    for trial in trials:
        curves = []
        for reuse, bench in benches.items():
            start = time.perf_counter()
            record = bench.run(trial)
            spent[reuse] += time.perf_counter() - start
            curves.append(record.outcome.curves)
        if curves[0] != curves[1]:
            raise RuntimeError(f"The engines disagree on {trial.axes}")
    return spent[True] / len(trials), spent[False] / len(trials)


def main() -> None:
    rows = []
    for case, settings in CASES.items():
        space = Space(**SHARED, **settings)
        rounds = [one_round(space) for _ in range(ROUNDS)]
        mine, rival = (3600 / statistics.median(times) for times in zip(*rounds, strict=True))
        ratio = statistics.median(rebuilt / reused for reused, rebuilt in rounds)
        note = "one trace for all rates and seeds; rival: each trial built and traced anew"
        rows.append(
            {
                "case": case,
                "unit": "trials an hour",
                "dropzoo": round(mine),
                "rival": round(rival),
                "dropzoo_over_rival": round(ratio, 2),
                "note": note,
            }
        )
        print(rows[-1], flush=True)
        write_csv(RESULTS, rows)


if __name__ == "__main__":
    main()
