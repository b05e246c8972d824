"""Compares the recipes of `dropzoo train --recipe` with the defaults, and with single parts of them.

    python benchmarks/recipes.py --data digits --model simple_cnn --limit 300
    python benchmarks/recipes.py --data digit_scenes --model unet --option depth=3 --option filters=8

All conditions train for the same number of epochs, so that the longer training of a recipe is no part of the
comparison; the first row shows what the default number of epochs costs. It prints the mean over the seeds on the
test images, and the difference to the defaults with its standard error, seed by seed.

Results: benchmarks/results/recipes.csv. A row replaces that of the same data, model and recipe.
"""

import argparse
import csv
import statistics
from pathlib import Path
from typing import Any

from _shared import write_csv
from dropzoo.cli.parsing import parse_options
from dropzoo.runs.config import RunConfig
from dropzoo.runs.presets import recipe_of
from dropzoo.sweep.workbench import Workbench

RESULTS = Path(__file__).parent / "results" / "recipes.csv"
PARTS: dict[str, list[str]] = {
    "classification": [
        "optimizer=adamw:weight_decay=0.05",
        "augment=shift=0.1,rotation=10,brightness=0.1,contrast=0.1",
        "ema=0.99",
        "label_smoothing=0.1",
        "mixup=0.2",
        "cutmix=1.0",
        "schedule=one_cycle; learning_rate=0.004",
    ],
    "segmentation": [
        "batch_size=8; learning_rate=0.002",
        "augment=shift=0.1,rotation=10,brightness=0.1,contrast=0.1",
        "deep_supervision=True",
        "ema=0.99",
    ],
}


def figures(bench: Workbench, config: RunConfig) -> tuple[float, float]:
    """Returns the score and the NLL on the test images."""
    outcome = bench.train(config)
    found: Any = outcome.test or outcome.validation
    return float(found.get("mean_iou") or found["accuracy"]), float(found["nll"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--model", default="simple_cnn")
    parser.add_argument("--option", action="append", help="an option of the model, as for dropzoo train")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", action="store_true", help="also try single settings")
    arguments = parser.parse_args()
    shared = {"data": arguments.data, "model": arguments.model, "limit": arguments.limit}
    shared["options"] = parse_options(arguments.option)
    task = "segmentation" if "unet" in arguments.model else "classification"
    conditions: dict[str, dict[str, Any]] = {"defaults, 10 epochs": {"epochs": 10}, "defaults": {}}
    for name in ("small", "medium", *(PARTS[task] if arguments.parts else ())):
        conditions[name] = {k: v for k, v in recipe_of(name, arguments.model).items() if k != "epochs"}
    bench, found = Workbench(), {}
    for name, settings in conditions.items():
        runs = []
        for seed in range(arguments.seeds):
            config = RunConfig(**{"epochs": arguments.epochs, **shared, **settings, "seed": seed})
            runs.append(figures(bench, config))
        found[name] = runs
        row = {"data": Path(arguments.data).name, "model": arguments.model, "recipe": name}
        row |= {"images": arguments.limit or "all", "epochs": settings.get("epochs", arguments.epochs)}
        row["seeds"] = arguments.seeds
        for index, title in ((0, "score"), (1, "nll")):
            row[title] = round(statistics.mean(run[index] for run in runs), 4)
            if "defaults" in found and name != "defaults":
                pairs = [a[index] - b[index] for a, b in zip(runs, found["defaults"], strict=True)]
                error = statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else float("nan")
                row |= {f"{title}_difference": round(statistics.mean(pairs), 4), f"{title}_error": round(error, 4)}
        print(row, flush=True)
        same = ("data", "model", "recipe")
        before = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
        others = [each for each in before if any(each[key] != row[key] for key in same)]
        write_csv(RESULTS, [*others, row])


if __name__ == "__main__":
    main()
