"""Random pictures in files of every type."""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image

from dropzoo.training.data.load import load_data

SHARED = Path(__file__).parents[3] / "shared" / "data"


def pixels(
    height: int = 6, width: int = 8, channels: int = 3, dtype: type = np.uint8, seed: int = 0
) -> np.ndarray:
    return (
        np.random.RandomState(seed).randint(np.iinfo(dtype).max + 1, size=(height, width, channels)).astype(dtype)
    )


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        image = image[..., 0] if image.shape[-1] == 1 else image
        options = {"photometric": "rgb" if image.shape[-1] == 3 else "minisblack"}
        tifffile.imwrite(path, image, **options, **({"planarconfig": "contig"} if image.ndim == 3 else {}))
    elif path.suffix == ".jpg":
        tf.io.write_file(str(path), tf.io.encode_jpeg(image))
    elif path.suffix == ".png":
        tf.io.write_file(str(path), tf.io.encode_png(image))
    else:
        Image.fromarray(image).save(path)


def write_pairs(folder: Path, count: int = 10, image_suffix: str = ".png", **shape) -> None:
    for number in range(count):
        image = pixels(seed=number, **shape)
        write(folder / "images" / f"{number:02}{image_suffix}", image)
        write(folder / "masks" / f"{number:02}.png", (image[..., :1] > 127).astype("uint8"))


def stored(path: Path) -> np.ndarray:
    """What `load_data` makes of a single image file."""
    write(path.parents[1] / "masks" / f"{path.stem}.png", np.ones((6, 8, 1), "uint8"))
    return next(iter(load_data(path.parents[1]).train))[0][0].numpy()
