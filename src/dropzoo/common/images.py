"""The orientation of photographs: cameras store pixels as the sensor lay, and note in EXIF how it was held."""

import numpy as np


def upright(image: np.ndarray, orientation: int | None) -> np.ndarray:
    """Turns an image as its EXIF orientation says.

    Args:
        image: Array `(height, width, ...)`.
        orientation: Int from 1 to 8, the EXIF tag 274. Anything else leaves the image as it is.

    Returns:
        A view of the array; height and width are exchanged for orientations 5 to 8.
    """
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return image[::down, ::across]
