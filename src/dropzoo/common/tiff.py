"""The pixels of TIFF files, which store grey values, colours, palettes and alpha in several ways."""

from typing import Any

import numpy as np


def arranged(pixels: np.ndarray, axes: str, page: Any, is_mask: bool = False) -> np.ndarray:
    """Returns the pixels of a TIFF file as `(height, width, channels)`, without alpha.

    Args:
        pixels: Array of the stored values.
        axes: A letter for each axis, as tifffile names them: `"YX"`, `"YXS"`, `"CYX"`.
        page: The first page, a `tifffile.TiffPage`, which says what the numbers mean.
        is_mask: Bool, whether the numbers are class ids, which stay as they are stored.

    Raises:
        ValueError: If there are other axes.
    """
    kind = page.photometric.name
    has_alpha = bool(page.extrasamples) and kind == "RGB"
    if kind == "PALETTE" and not is_mask:
        colours = (page.colormap >> 8).astype(np.uint8)  # the file has 16 bits for each value
        pixels, axes = np.moveaxis(colours[:, pixels.astype(int)], 0, -1), axes + "S"
    # A mask stays as it is stored, because tifffile writes True and False as MINISWHITE too.
    if kind == "MINISWHITE" and not is_mask and pixels.dtype.kind in "bu":
        pixels = pixels ^ pixels.dtype.type(2**page.bitspersample - 1)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))  # TensorFlow takes the machine's byte order only
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.ndim != 3 or "Y" not in axes or "X" not in axes:
        raise ValueError(f"expected height, width and channels, received axes {axes} of shape {pixels.shape}")
    pixels = np.transpose(pixels, (axes.index("Y"), axes.index("X"), 3 - axes.index("Y") - axes.index("X")))
    return pixels[..., :-1] if has_alpha else pixels
