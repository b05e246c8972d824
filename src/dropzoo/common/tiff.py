"""The pixels of TIFF files, which store grey values, colours, inks, palettes and alpha in several ways."""

from typing import Any

import numpy as np

from dropzoo.common.images import upright

#: The scale, the tie points, the transformation, and the keys of a coordinate system with their numbers and texts.
GEO = (33550, 33922, 34264, 34735, 34736, 34737)
_INKS = 4  # cyan, magenta, yellow and black
_MARGIN = 4096  # bytes that a file of one image may have besides its pixels


def check_whole(file: Any) -> None:
    """Raises an error if a stack of ImageJ is cut short; tifffile then takes it for its first image alone.

    A single image that other programs took out of a stack may keep the description of the stack. So a file is only
    refused if there are bytes of a second image.

    Args:
        file: An open `tifffile.TiffFile`.

    Raises:
        ValueError: If the file ends before the last image that it states.
    """
    page, stated = file.pages[0], (file.imagej_metadata or {}).get("images", 1)
    if isinstance(stated, int) and stated > 1 and len(file.pages) == 1 and page.compression == 1:
        first, needed = (page.dataoffsets[0] + count * page.nbytes for count in (1, stated))
        if first + _MARGIN < file.filehandle.size < needed:
            raise ValueError(
                f"the file states {stated} images, for which it needs {needed} bytes, but it has "
                f"{file.filehandle.size}"
            )


def channels_stated(page: Any, samples: int) -> int:
    """Returns how many channels `arranged` gives for a page without a palette.

    Args:
        page: The page, a `tifffile.TiffPage`.
        samples: Int, the number of values that are stored for a pixel.
    """
    if _has_inks(page, samples):
        return 3
    return samples - _has_alpha(page)


def orientation_of(page: Any) -> int:
    """Returns by which orientation a page, a `tifffile.TiffPage`, is turned, from 1 to 8; 1, upright, for none.

    Maps stay as they are stored, because their position on the earth is that of the stored rows. Stacks do too,
    because their pages may state different orientations.
    """
    pages = page.parent.pages
    is_stack = pages.is_multipage and not getattr(pages[1], "is_reduced", False)  # and the second no thumbnail
    return 1 if is_stack or any(code in page.keyframe.tags for code in GEO) else _stated(page)


def as_turned(pixels: np.ndarray, page: Any) -> np.ndarray:
    """Returns an image, `(height, width, channels)`, that Pillow read and turned by what its page states."""
    stated = _stated(page)
    if stated == orientation_of(page):
        return pixels
    return upright(pixels, {6: 8, 8: 6}.get(stated, stated))  # back; the other orientations undo themselves


def _stated(page: Any) -> int:
    stated = page.keyframe.tags.valueof("Orientation", default=1)
    return int(stated) if stated in range(2, 9) else 1


def arranged(pixels: np.ndarray, axes: str, page: Any, is_mask: bool = False) -> np.ndarray:
    """Returns the pixels of a TIFF file upright, `(height, width, channels)`, without alpha, and inks as RGB.

    Args:
        pixels: Array of the stored values.
        axes: A letter for each axis, as tifffile names them: `"YX"`, `"YXS"`, `"CYX"`.
        page: The first page, a `tifffile.TiffPage`, which says what the numbers mean.
        is_mask: Bool, whether the numbers are class ids, which stay as they are stored.

    Raises:
        ValueError: If there are other axes.
    """
    kind = page.photometric.name
    if kind == "PALETTE" and not is_mask:
        colours = (page.colormap >> 8).astype(np.uint8)  # the file has 16 bits for each value
        pixels, axes = np.moveaxis(colours[:, pixels.astype(int)], 0, -1), axes + "S"
    # A mask stays as it is stored, because tifffile writes True and False as MINISWHITE too.
    if kind == "MINISWHITE" and not is_mask and pixels.dtype.kind in "bu":
        pixels = pixels ^ pixels.dtype.type(2**page.bitspersample - 1)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))  # TensorFlow takes the machine's byte order only
    if pixels.ndim == 2:
        return upright(pixels[..., None], orientation_of(page))
    if pixels.ndim != 3 or "Y" not in axes or "X" not in axes:
        raise ValueError(f"expected height, width and channels, received axes {axes} of shape {pixels.shape}")
    pixels = np.transpose(pixels, (axes.index("Y"), axes.index("X"), 3 - axes.index("Y") - axes.index("X")))
    if _has_inks(page, pixels.shape[-1]) and not is_mask:
        pixels = _from_inks(pixels[..., :_INKS])
    elif _has_alpha(page):
        pixels = pixels[..., :-1]
    return upright(pixels, orientation_of(page))


def _has_alpha(page: Any) -> bool:
    return bool(page.extrasamples) and page.photometric.name == "RGB"


def _has_inks(page: Any, samples: int) -> bool:
    """Whether a page has cyan, magenta, yellow and black, in 8 or 16 bits."""
    if page.dtype not in (np.uint8, np.uint16):
        return False
    usual = page.tags.valueof("InkSet", default=1) == 1
    return page.photometric.name == "SEPARATED" and usual and samples - len(page.extrasamples) == _INKS


def _from_inks(pixels: np.ndarray) -> np.ndarray:
    """Cyan, magenta, yellow and black as red, green and blue, without a colour profile, as Pillow does."""
    top = np.iinfo(pixels.dtype).max
    light = (top - pixels).astype(np.uint32)
    return ((light[..., :3] * light[..., 3:] + top // 2) // top).astype(pixels.dtype)
