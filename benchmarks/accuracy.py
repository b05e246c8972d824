"""Trains the recipes that the project promises figures of, and prints the figures beside what they must reach.

    python benchmarks/accuracy.py nuclei --data FOLDER
    python benchmarks/accuracy.py membranes --data FOLDER
    python benchmarks/accuracy.py cifar10_jpeg --data FOLDER

FOLDER holds the data sets. Each row is one run in runs/accuracy/NAME: a row that was stopped goes on when it is
started again, log.csv has the course, and figures.json the figures with the seconds that the training took in all.
For the membranes, a second training follows; the network that is judged is in runs/accuracy/NAME/finish.
For nuclei and membranes, which look alike from all sides, the mean over the eight flips and turns of an image is
judged (`serving.TestTimeAugmentation`), and the figures of one pass are printed too.
`--epochs 2` tries a row out, in a folder of its own. Results of whole rows: benchmarks/results/accuracy.csv.
"""

import argparse
import contextlib
import csv
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from rich.console import Console

from _shared import write_csv
from dropzoo import serving
from dropzoo.models.graph.record import load_model
from dropzoo.runs.comparison import Wanted, compare
from dropzoo.runs.config import RunConfig
from dropzoo.runs.data import judged_images
from dropzoo.runs.evaluation import evaluate, evaluate_with
from dropzoo.runs.files import read_json, write_json
from dropzoo.runs.inputs import fed
from dropzoo.runs.loading import load_run_for
from dropzoo.runs.run import train_run

RESULTS = Path(__file__).parent / "results" / "accuracy.csv"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        config: Dict of the fields of the run's config, without its data.
        must: Dict of the figures that it must reach: the name, and the least value, or the largest one for errors.
        per: The names of the tables of scores to print.
        turned: Whether the mean over the eight flips and turns of an image is judged, instead of one pass.
        finish: Dict of the fields of the config in which a second training differs, which goes on from the weights
            of the first; empty for none.
    """

    config: dict[str, Any]
    must: dict[str, float]
    per: tuple[str, ...] = field(default=("class",))
    turned: bool = False
    finish: dict[str, Any] = field(default_factory=dict)


TURNS = (
    *("identity", "rotate_90", "rotate_180", "rotate_270"),
    *("flip_horizontal", "flip_vertical", "transpose", "anti_transpose"),
)
_CELLS = (
    "flip_horizontal,flip_vertical,rotation=180,scale=0.2,elastic=4,crop=128,brightness=0.1,contrast=0.2,gamma=0.2"
)
_UNET = {
    "model": "unet",
    "options": {"depth": 4, "filters": 16},
    "dropout": {"bottleneck*": 0.3, "decoder*_conv2": "spatial_dropout2d:0.1"},
    "augment": _CELLS,
    "deep_supervision": True,
    "optimizer": "adamw:weight_decay=0.01",
    "learning_rate": 2e-3,
    "warmup": 5.0,
    "clip_norm": 1.0,
    "ema": 0.99,
    "batch_size": 8,
}
ROWS = {
    "nuclei": Row(
        {
            "data": "dsb2018_nuclei",
            **_UNET,
            "epochs": 250,
        },
        {"foreground IoU": 0.825},
        ("class", "object"),
        turned=True,
    ),
    "membranes": Row(
        {
            "data": "isbi2012_membranes",
            **_UNET,
            "epochs": 1000,
            "validation_split": 0.05,
        },
        {"pixel error": 0.075, "mean IoU": 0.80},
        turned=True,
        # Rotation, scale and bending interpolate the images, which blurs them; the test images are sharp.
        finish={
            "augment": "flip_horizontal,flip_vertical,crop=128,brightness=0.1,contrast=0.2,gamma=0.2",
            "epochs": 150,
            "learning_rate": 5e-4,
        },
    ),
    # What the second training brings if it does not leave out the interpolation.
    "membranes_control": Row(
        {
            "data": "isbi2012_membranes",
            **_UNET,
            "epochs": 1000,
            "validation_split": 0.05,
        },
        {},
        turned=True,
        finish={"epochs": 150, "learning_rate": 5e-4},
    ),
    "cifar10_jpeg": Row(
        {
            "data": "cifar10_jpeg",
            "model": "simple_cnn",
            "options": {"filters": (48, 96, 192), "convs_per_module": 2, "head": "average_pool", "dense": ()},
            "dropout": {"module?": 0.1, "features": 0.3},
            "augment": "flip_horizontal,shift=0.12,scale=0.1,brightness=0.1,contrast=0.2,saturation=0.2",
            "cutmix": 1.0,
            "mixup": 0.2,
            "optimizer": "adamw:weight_decay=0.05",
            "learning_rate": 3e-3,
            "learning_rate_schedule": "one_cycle",
            "clip_norm": 1.0,
            "epochs": 100,
            "batch_size": 64,
        },
        {"accuracy": 0.70},
    ),
}


def train(name: str, data: Path, epochs: int | None, out: Path, say: Callable[[str], None]) -> None:
    """Trains a row, or goes on where it was stopped, and prints its figures."""
    row = ROWS[name]
    given = {**row.config, "data": str(data / row.config["data"])}
    config = RunConfig(**given)
    folder = out / (name if epochs is None else f"{name}-{epochs}-epochs")
    if epochs is not None:
        config = dataclasses.replace(config, epochs=epochs, warmup=min(config.warmup, epochs / 2))
    clock = folder / "seconds.json"
    if (folder / "results.json").exists():
        say(f"{folder} is finished")
    else:
        with _added_to(clock):
            train_run(config, folder, say=say, verbose=2, log=("csv",))
    model, config, loaded = load_run_for(folder)
    results = read_json(folder / "results.json")
    if row.finish:
        say(f"{name}, before it goes on: {judged(results, loaded.info.task)}")
        changed = row.finish | ({} if epochs is None else {"epochs": epochs})
        if not (folder / "finish" / "model.keras").exists():
            with _added_to(clock):
                go_on(model, dataclasses.replace(config, **changed), folder / "finish")
        model = load_model(folder / "finish" / "model.keras")
        results = evaluate(model, judged_images(loaded), loaded.info)
    compare(model, loaded, Wanted(per=row.per), Console().print)
    figures = judged(results, loaded.info.task)
    ways = {"one pass": figures}
    if row.turned:
        say(f"{name}: one pass: {figures}")
        turned = serving.TestTimeAugmentation(model, TURNS)
        figures = judged(evaluate_with(turned, judged_images(loaded), loaded.info), loaded.info.task)
        ways["flips and turns"] = figures
    for figure, bound in row.must.items():
        found = figures[figure]
        good = found <= bound if "error" in figure else found >= bound
        say(f"{name}: {figure} {found:.4f}, must be {bound:g}: {'reached' if good else 'NOT reached'}")
    seconds = read_json(clock)["seconds"]
    say(f"{name}: {seconds / 60:.0f} minutes in all")
    write_json(folder / "figures.json", {**figures, "seconds": seconds})
    if epochs is None:
        rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
        minutes = round(seconds / 60)
        new = [{"name": name, "way": way, "minutes": minutes, **_rounded(each)} for way, each in ways.items()]
        write_csv(RESULTS, [*(each for each in rows if each["name"] != name), *new])


def go_on(model: keras.Model, config: RunConfig, folder: Path) -> None:
    """Trains a network further, and saves it in a folder; a training that was stopped goes on."""
    data = config.load_data()
    config.trainer(model, data.info).fit(
        fed(data.train, model),
        validation_data=fed(data.validation, model),
        epochs=config.epochs,
        checkpoint_dir=folder,
        verbose=2,
    )
    model.save(folder / "model.keras")


@contextlib.contextmanager
def _added_to(clock: Path) -> Iterator[None]:
    """Adds the seconds of the block to those in a file, even if the block is stopped."""
    before = read_json(clock)["seconds"] if clock.exists() else 0.0
    start = time.perf_counter()
    try:
        yield
    finally:
        if clock.parent.is_dir():
            write_json(clock, {"seconds": before + time.perf_counter() - start})


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {figure: round(value, 4) for figure, value in figures.items()}


def judged(results: dict[str, Any], task: str) -> dict[str, float]:
    """Returns the figures of the table from those of a run."""
    found = {"accuracy": results["accuracy"]}
    if task == "segmentation":
        found |= {"pixel error": 1 - results["accuracy"], "mean IoU": results["mean_iou"]}
        found["foreground IoU"] = list(results["iou"].values())[-1]  # of two classes, the second
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", choices=ROWS, help=", ".join(ROWS))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--epochs", type=int, help="train only so long, to try a row out")
    parser.add_argument("--out", type=Path, default=Path("runs") / "accuracy")
    arguments = parser.parse_args()
    for name in arguments.names:
        train(name, arguments.data, arguments.epochs, arguments.out, print)


if __name__ == "__main__":
    main()
