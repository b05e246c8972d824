"""The reference models: how each is trained, and on which data."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dropzoo.runs.config import RunConfig


@dataclass(frozen=True)
class Reference:
    """One reference model.

    Attributes:
        weights: Str, the name for `build_model(..., weights=...)`.
        config: Dict of the fields of the run's config, without the folders of data.
        guarantee: Dict of the guarantees of its calibration, as for `serving.calibrate`.
        published: Dict of figures that others report on these data, with their source.
        folder: Str, the folder in FOLDER that holds the data; None if the data are part of the project.
        kept: Bool. Whether the model is written; otherwise its figures are only printed.
        without: Dict of the fields of the config that have other values where nothing is dropped: what suits the
            network with dropout best need not suit the one without.
    """

    weights: str
    config: dict[str, Any]
    guarantee: dict[str, float]
    published: dict[str, Any] = field(default_factory=dict)
    folder: str | None = None
    kept: bool = True
    without: dict[str, Any] = field(default_factory=dict)

    def run(self, data: Path | None, seed: int = 0, dropout: bool = True) -> RunConfig:
        """Returns the config of a training.

        Args:
            data: The folder of the data sets that are not part of the project.
            seed: Int, the seed of the weights, the masks and the order. The validation images stay the same.
            dropout: Bool, whether anything is dropped.

        Raises:
            SystemExit: If the data are not there.
        """
        places: dict[str, Any] = {}
        if self.folder is not None:
            if data is None or not (data / self.folder).is_dir():
                raise SystemExit(f"{self.weights} needs --data, a folder with {self.folder}. Received: {data}")
            if self.config["data"] == "fashion_mnist":
                places = {"manual_dir": str(data / self.folder)}
            else:
                places = {"data": str(data / self.folder)}
        config = RunConfig(**{"data_seed": 0, "seed": seed, **self.config, **places})
        return config if dropout else replace(config, dropout=None, **self.without)


_CLASSES = {"set": 0.05, "error": 0.05}
_MASKS = {"miss": 0.1, "false": 0.1}
_TURNS = "flip_horizontal,flip_vertical,rotation=90,crop=128,brightness=0.1,contrast=0.1"
_UNET = {
    "model": "unet",
    "options": {"depth": 4, "filters": 12},
    "dropout": {"bottleneck*": 0.3, "decoder*_conv2": "spatial_dropout2d:0.1"},
    "augment": _TURNS,
    "batch_size": 8,
    "learning_rate": 2e-3,
}

REFERENCES = {
    "fashion_mnist_cnn": Reference(
        "fashion_mnist",
        {
            "model": "simple_cnn",
            "data": "fashion_mnist",
            "options": {"filters": (24, 48, 96), "convs_per_module": 2, "dense": (256,)},
            "dropout": {"module?": 0.1, "dense1": 0.5},
            "augment": "flip_horizontal,shift=0.05",
            "epochs": 30,
            "batch_size": 128,
            "learning_rate": 2e-3,
            "optimizer": "adamw:weight_decay=1e-4",
        },
        _CLASSES,
        {
            "3 convolutions and 2 dense layers with dropout": "0.926 (the data set's own table, zalandoresearch)",
            "2 convolutions, flips": "0.939 (the same table)",
            "ResNet18": "0.949 (the same table)",
        },
        "fashion_mnist",
        without={"epochs": 15},
    ),
    "dsb2018_nuclei_unet": Reference(
        "dsb2018_nuclei",
        {
            **_UNET,
            "data": "dsb2018_nuclei",
            "epochs": 120,
            "validation_split": 0.2,
        },
        _MASKS,
        {},
        "dsb2018_nuclei",
    ),
    # The terms of these data exclude software that is sold, so the model is not part of the project.
    "isbi2012_membranes_unet": Reference(
        "isbi2012_membranes",
        {
            **_UNET,
            "data": "isbi2012_membranes",
            "epochs": 300,
            "validation_split": 0.05,
        },
        {},
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
            "validation_split": 0.2,
        },
        _CLASSES,
    ),
    "digit_scenes_unet": Reference(
        "digit_scenes",
        {
            "model": "unet",
            "data": "digit_scenes",
            "options": {"depth": 3, "filters": 16},
            "dropout": {"bottleneck*": 0.3, "decoder*_conv2": "spatial_dropout2d:0.1"},
            "epochs": 40,
            "batch_size": 8,
            "learning_rate": 2e-3,
        },
        _MASKS,
    ),
}
