"""The orientation of photographs: cameras store the sensor's pixels, and say in EXIF how to turn them."""

import numpy as np


def upright(image: np.ndarray, orientation: int | None) -> np.ndarray:
    """Returns an image turned upright by its EXIF orientation.

    Args:
        image: Array `(height, width, ...)`.
        orientation: Int from 1 to 8, the value of EXIF tag 274. Other values leave the image unchanged.

    Returns:
        A view of the array. Orientations 5 to 8 exchange height and width.
    """
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return image[::down, ::across]
