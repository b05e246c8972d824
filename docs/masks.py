"""Draws docs/images/masks.png: what each site layer does to one real feature map.

    python docs/masks.py

The feature map is that of a digit (scikit-learn) under edge filters of eight directions and a ReLU.
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from sklearn.datasets import load_digits

from dropzoo import layers

SPECS = [
    "dropout:0.3",
    "spatial_dropout2d:0.3",
    "drop_block2d:0.3,block_size=7",
    "cutout_dropout:0.3",
    "drop_path:0.3",
    "weighted_channel_dropout:0.5",
    "max_dropout:0.6",
    "targeted_dropout:0.7,target_fraction=0.5",
    "gaussian_dropout:0.3",
    "u_out:0.6",
    "shake_drop:0.7,level=channel",
    "alpha_dropout:0.3",
]
NOTES = {"drop_path": "(a dropped sample)", "weighted_channel_dropout": "(the strong stay)"}


def feature_map() -> np.ndarray:
    """`(1, 30, 24, 8)`: a digit, enlarged, under eight edge filters; none of its units is exactly 0."""
    digit = load_digits().images[8].astype("float32")[None, ..., None] / 16
    image = keras.ops.image.resize(digit, (30, 24), interpolation="bicubic")
    y, x = np.mgrid[-2:3, -2:3].astype("float32")
    bell = np.exp(-(x**2 + y**2) / 3)
    filters = [bell * (x * np.cos(a) + y * np.sin(a)) for a in np.arange(8) * np.pi / 4]
    kernel = np.stack(filters, -1).astype("float32")[:, :, None]  # (5, 5, 1, 8)
    edges = keras.ops.relu(keras.ops.conv(image, kernel, padding="same"))
    return np.asarray(edges / keras.ops.max(edges)) + 0.03


def mosaic(maps: np.ndarray) -> np.ndarray:
    """The eight channels of `(height, width, 8)` in two rows, with gaps of NaN."""
    tiles = np.pad(maps, ((0, 2), (0, 2), (0, 0)), constant_values=np.nan)
    return np.vstack([np.hstack([tiles[..., row * 4 + column] for column in range(4)]) for row in range(2)])


def main() -> None:
    x = np.repeat(feature_map(), 6, axis=0)  # six samples, of which one is shown
    figure, axes = plt.subplots(4, 3, figsize=(12, 11), layout="constrained")
    orange = ListedColormap(["#e8760c"])
    for axis, spec in zip(axes.flat, SPECS, strict=True):
        layer = layers.get(f"{spec},seed=6")
        y = np.asarray(layer(x, training=True))
        rare = spec.startswith(("drop_path", "shake_drop"))  # leave most samples as they are
        sample = int(abs(y - x).mean((1, 2, 3)).argmax()) if rare else 0
        shown = mosaic(y[sample])
        axis.imshow(shown, cmap="gray", vmin=-0.4 if (y < 0).any() else 0, vmax=1.4)
        dropped = np.where(mosaic((y[sample] == 0).astype("float32")) == 1, 1.0, np.nan)
        axis.imshow(dropped, cmap=orange)
        note = NOTES.get(spec.split(":")[0], "")
        axis.set_title(f"{spec} {note}", fontsize=10.5)
        axis.axis("off")
    figure.suptitle("Eight channels of a feature map after each layer; what is set to zero is orange", fontsize=13)
    figure.savefig(Path(__file__).parent / "images" / "masks.png", dpi=90)


if __name__ == "__main__":
    main()
