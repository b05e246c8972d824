"""Trains, calibrates and exports the reference models.

    python saved_models/make.py NAME ... [--data FOLDER]

Each model gets a folder `saved_models/NAME` with `1`, a SavedModel with a model card; `model.keras` with
`calibration.json`; and `reference.json`, which `build_model(..., weights=...)` reads. Its network is that of the
first seed of `seeds.py`, and the card also has the means over all seeds in benchmarks/results/references.csv. The
terms of the membrane data do not allow a model to be shared, so its figures are only printed. FOLDER holds the
data sets that are not part of the project.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import seeds
from references import REFERENCES, Reference

from dropzoo import models, serving
from dropzoo.common.files import whole_file
from dropzoo.common.keras_versions import make_readable
from dropzoo.runs.files import write_json
from dropzoo.runs.inputs import fed
from dropzoo.runs.ways import judge

HERE = Path(__file__).parent
#: Fields of a run that are not about the model: where the data were.
_PLACES = ("data", "data_dir", "manual_dir")


def make(name: str, reference: Reference, data: Path | None) -> None:
    """Trains, judges, calibrates and exports one reference model."""
    config = reference.run(data)
    model, loaded = seeds.trained(name, data, 0, True)
    figures = {way: rounded(found.figures()) for way, found in judge(model, loaded, seeds.NUM_SAMPLES).items()}
    for way, found in figures.items():
        print(f"{name}, {way}: {found}")
    if not reference.kept:
        return
    # A model without the optimizer, whose state is twice the weights.
    options = {"input_shape": loaded.info.input_shape, "num_classes": loaded.info.num_classes, **config.options}
    bare = models.build_model(config.model, dropout=config.dropout, **options)
    bare.set_weights(model.get_weights())
    calibration = serving.calibrate(
        serving.MonteCarlo(bare, num_samples=seeds.NUM_SAMPLES),
        fed(loaded.validation, bare),
        guarantee=reference.guarantee,
        data=f"{reference.weights}, validation images",
        verbose=0,
    )
    told = {field: value for field, value in config.to_json().items() if field not in _PLACES}
    card = {
        "data": f"{reference.weights}: {loaded.info.num_train:,} training, {loaded.info.num_test:,} test images",
        "metrics": {**figures, **seeds.summary(seeds.read(), name)},
        "published": reference.published,
        "training": told,
        "command": f"python saved_models/make.py {name}",
    }
    folder = HERE / name
    serving.export_model(
        bare,
        folder / "1",
        num_samples=seeds.NUM_SAMPLES,
        class_names=loaded.info.class_names,
        calibration=calibration,
        card=card,
        input_range=(0, 1),
        overwrite=True,
    )
    with whole_file(folder / "model.keras") as unfinished:
        bare.save(unfinished)
    calibration.save(folder / "calibration.json")
    for file in folder.rglob("model.keras"):  # the SavedModel has one too
        make_readable(file)
    written = {"model": config.model, "weights": reference.weights, "options": options, "dropout": config.dropout}
    write_json(folder / "reference.json", written)


def rounded(figures: Mapping[str, object]) -> dict[str, float]:
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
