"""Pictures for the page, as data: addresses."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def data_address(values: np.ndarray, palette: Sequence[tuple[int, ...]], transparent: int | None = None) -> str:
    """Returns a PNG picture as a data: address.

    Args:
        values: Array `(height, width)` of the numbers of colours.
        palette: The colours, as red, green and blue from 0 to 255.
        transparent: Int, the number of the colour that lets the background through, or None.
    """
    image = Image.fromarray(values.astype("uint8"))
    image.putpalette([part for colour in palette for part in colour])
    file = io.BytesIO()
    options = {} if transparent is None else {"transparency": transparent}
    image.save(file, "PNG", **options)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
