"""Trains and exports the reference models.

    python saved_models/make.py NAME ... [--data FOLDER]

Each model gets a folder `saved_models/NAME` with `1`, a SavedModel with a model card; `model.keras`; and
`reference.json`, which `build_model(..., weights=...)` reads. The terms of the membrane data do not allow a model
to be shared, so its figures are only printed. FOLDER holds the data sets that are not part of the project. The
runs are under runs/, where a training that was stopped continues.
"""

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dropzoo import models, serving
from dropzoo.common.files import whole_file
from dropzoo.common.keras_versions import make_readable
from dropzoo.runs.config import RunConfig
from dropzoo.runs.data import judged_images
from dropzoo.runs.evaluation import evaluate
from dropzoo.runs.figures import Figures
from dropzoo.runs.files import write_json
from dropzoo.runs.run import train_run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Reference:
    """One reference model.

    Attributes:
        weights: Str, the name for `build_model(..., weights=...)`.
        config: Dict of the fields of the run's config, without the folders of data.
        published: Dict of figures that others report on these data, with their source.
        folder: Str, the folder in FOLDER that holds the data; None if the data are part of the project.
        kept: Bool. Whether the model is written; otherwise its figures are only printed.
    """

    weights: str
    config: dict[str, Any]
    published: dict[str, Any] = field(default_factory=dict)
    folder: str | None = None
    kept: bool = True


REFERENCES = {
    "fashion_mnist_cnn": Reference(
        "fashion_mnist",
        {
            "model": "simple_cnn",
            "data": "fashion_mnist",
            "dropout": {"module?": "spatial_dropout2d:0.1", "dense1": 0.4},
            "augment": "flip_horizontal",
            "epochs": 12,
            "batch_size": 64,
        },
        {
            "3 convolutions and 2 dense layers with dropout": "0.926 (the data set's own table, zalandoresearch)",
            "WRN-28-10": "0.963 (the same table)",
        },
        "fashion_mnist",
    ),
    "dsb2018_nuclei_unet": Reference(
        "dsb2018_nuclei",
        {
            "model": "unet",
            "data": "dsb2018_nuclei",
            "options": {"depth": 4, "filters": 12},
            "dropout": {"bottleneck*": 0.3, "decoder*_conv2": "spatial_dropout2d:0.1"},
            "augment": "flip_horizontal,flip_vertical,rotation=90,crop=128,brightness=0.1,contrast=0.1",
            "epochs": 60,
            "batch_size": 8,
            "learning_rate": 2e-3,
        },
        {},
        "dsb2018_nuclei",
    ),
    # The terms of these data exclude software that is sold, so the model is not part of the project.
    "isbi2012_membranes_unet": Reference(
        "isbi2012_membranes",
        {
            "model": "unet",
            "data": "isbi2012_membranes",
            "options": {"depth": 4, "filters": 12},
            "dropout": {"bottleneck*": 0.3, "decoder*_conv2": "spatial_dropout2d:0.1"},
            "augment": "flip_horizontal,flip_vertical,rotation=90,crop=128,brightness=0.1,contrast=0.1",
            "epochs": 300,
            "batch_size": 8,
            "learning_rate": 2e-3,
            "validation_split": 0.05,
        },
        folder="isbi2012_membranes",
        kept=False,
    ),
    "digits_cnn": Reference(
        "digits",
        {
            "model": "simple_cnn",
            "data": "digits",
            "options": {"filters": (32, 64), "convs_per_module": 2},
            "dropout": {"module?": 0.2, "dense1": 0.5},
            "augment": "shift=0.1,rotation=10",
            "epochs": 60,
        },
    ),
    "digit_scenes_unet": Reference(
        "digit_scenes",
        {
            "model": "unet",
            "data": "digit_scenes",
            "options": {"depth": 3, "filters": 16},
            "dropout": {"bottleneck*": 0.3, "decoder*_conv2": "spatial_dropout2d:0.1"},
            "epochs": 30,
            "batch_size": 8,
        },
    ),
}


def make(name: str, reference: Reference, data: Path | None) -> None:
    """Trains, evaluates and exports one reference model."""
    places: dict[str, Any] = {}
    if reference.folder is not None:
        if data is None or not (data / reference.folder).is_dir():
            raise SystemExit(f"{name} needs --data, a folder with {reference.folder} in it. Received: {data}")
        if reference.config["data"] == "fashion_mnist":
            places = {"manual_dir": str(data / reference.folder)}
        else:
            places = {"data": str(data / reference.folder)}
    config = RunConfig(**{**reference.config, **places})
    model, figures = train_run(config, Path("runs") / name, steps_per_execution=16)
    loaded = config.load_data()
    sampled = evaluate(model, judged_images(loaded), loaded.info, serving.MonteCarlo(model, num_samples=30))
    print(f"{name}: {rounded(figures)}; Monte Carlo {rounded(sampled)}")
    if not reference.kept:
        return
    shape = {"input_shape": loaded.info.input_shape, "num_classes": loaded.info.num_classes}
    options = {**shape, **config.options}
    # A model without the optimizer, whose state is twice the weights.
    bare = models.build_model(config.model, dropout=config.dropout, **options)
    bare.set_weights(model.get_weights())
    told = {
        name: value for name, value in config.to_json().items() if name not in ("data", "data_dir", "manual_dir")
    }
    card = {
        "data": f"{reference.weights}: {loaded.info.num_train:,} images to train, {figures['count']:,} to test on",
        "metrics": {"one pass": rounded(figures), "Monte Carlo, 30 samples": rounded(sampled)},
        "published": reference.published,
        "training": told,
        "command": f"python saved_models/make.py {name}",
    }
    folder = HERE / name
    serving.export_model(
        bare, folder / "1", num_samples=30, class_names=loaded.info.class_names, card=card, overwrite=True
    )
    with whole_file(folder / "model.keras") as unfinished:
        bare.save(unfinished)
    for file in folder.rglob("model.keras"):  # the SavedModel has one too
        make_readable(file)
    written = {"model": config.model, "weights": reference.weights, "options": options, "dropout": config.dropout}
    write_json(folder / "reference.json", written)


def rounded(figures: Figures) -> dict[str, float]:
    """Returns the figures that are numbers, to four digits."""
    return {key: round(value, 4) for key, value in figures.items() if isinstance(value, float)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", choices=REFERENCES, help=", ".join(REFERENCES))
    parser.add_argument("--data", type=Path, help="folder of the data sets that are not part of the project")
    arguments = parser.parse_args()
    for name in arguments.names:
        make(name, REFERENCES[name], arguments.data)


if __name__ == "__main__":
    main()
