"""Reads image files into the input of a signature, with all checks."""

import io
import itertools
import math
from typing import Any

import numpy as np
import tensorflow as tf
import tifffile
from PIL.Image import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from dropzoo.common.images import CHANNELS, PNG, orientation_in, png_exif, upright
from dropzoo.common.pixels import Pixels
from dropzoo.common.tiff import arranged, as_turned
from dropzoo.common.words import count_of
from dropzoo.serving.decode import decode_jpeg
from dropzoo.serving.server.bodies import is_base64
from dropzoo.serving.server.hints import send_file
from dropzoo.serving.server.limits import Limits, Refused

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SMALLER = "Send a smaller image, or start the server with a higher --max-pixels"


def check_image(data: bytes, limits: Limits) -> ImageFile:
    """Returns the header of a PNG or JPEG file, without decompressing the image.

    Args:
        data: Bytes of the file.
        limits: Limits of a request.

    Raises:
        Refused: If the file is neither PNG nor JPEG, its header is broken, or the image has too many pixels.
    """
    is_png, is_jpeg = data.startswith(PNG), data.startswith(b"\xff\xd8\xff")
    if data.startswith(_TIFF):
        raise Refused(
            400,
            '{"b64": ...} can only hold a PNG or JPEG file. Send a TIFF file as the body',
            send_file("image/tiff"),
        )
    if not (is_png or is_jpeg):
        raise Refused(400, "The image is neither PNG nor JPEG nor TIFF", how_to_convert(data))
    try:
        header = (PngImageFile if is_png else JpegImageFile)(io.BytesIO(data))
    except Exception:  # whatever a hostile header makes the parser raise
        raise Refused(400, "The header of the image cannot be read") from None
    width, height = header.size
    if width * height > limits.max_pixels:
        raise Refused(413, f"The image has {width} x {height} pixels; {limits.max_pixels:,} are allowed", _SMALLER)
    return header


def how_to_convert(data: bytes) -> str:
    """Returns how to convert a file of another kind; empty if it is not an image."""
    if is_base64(data):
        return "It seems to be in base64: send the bytes themselves"
    kinds = {b"GIF8": "a GIF", b"BM": "a BMP", b"RIFF": "a WebP", b"%PDF": "a PDF"}
    kind = next((name for start, name in kinds.items() if data.startswith(start)), None)
    kind = "a HEIC or AVIF" if data[4:8] == b"ftyp" else kind
    return f"It seems to be {kind} file: save it as PNG" if kind else ""


def read_tiff(data: bytes, limits: Limits, any_numbers: bool = False) -> np.ndarray:
    """Returns the only page of a TIFF file, uint8, uint16 or float32 in [0, 1], `(height, width, channels)`.

    Args:
        data: Bytes of the file.
        limits: Limits of a request.
        any_numbers: Bool. Whether floats may have any values, and integers any number of bits.

    Raises:
        Refused: If the file cannot be read, has numbers of another kind, or has too many pixels.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page: Any = file.pages[0]  # `series` may name further files
            if any(not each.is_reduced for each in itertools.islice(file.pages, 1, 4)):
                raise Refused(400, "The TIFF file has several pages. Send each page as a separate file")
            width, height = page.imagewidth, page.imagelength
            if math.prod(page.shape) > 4 * limits.max_pixels:
                numbers = f"{math.prod(page.shape):,} numbers ({width} x {height} pixels)"
                raise Refused(413, f"The image has {numbers}; {4 * limits.max_pixels:,} are allowed", _SMALLER)
            try:
                image = arranged(page.asarray(maxworkers=1), page.axes, page)
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
                image = as_turned(_by_pillow(data), page)  # a compression that only Pillow knows, such as LZW
    except Refused:
        raise
    except Exception:  # whatever a hostile file makes the parser raise
        raise Refused(
            400,
            "The TIFF file cannot be read: it may be truncated, or its compression is not supported. Send it "
            "uncompressed",
        ) from None
    image = image.astype("uint8") * np.uint8(255) if image.dtype == bool else image
    if image.dtype in (np.uint8, np.uint16):
        return image
    if any_numbers and image.dtype.kind in "fiu" and np.isfinite(image).all():
        return image.astype("float32")
    if image.dtype.kind == "f" and image.size and 0 <= image.min() and image.max() <= 1:
        return image.astype("float32")
    raise Refused(
        400, f"A TIFF file must have 8-bit or 16-bit pixels, or floats in [0, 1]; received {image.dtype.name}"
    )


def _by_pillow(data: bytes) -> np.ndarray:
    """The pixels of a TIFF file of a usual kind, `(height, width, channels)`, without alpha."""
    image: Image = TiffImageFile(io.BytesIO(data))
    if image.mode not in ("1", "L", "P", "RGB", "RGBA", "I;16"):
        raise ValueError(image.mode)
    pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "RGBA") else image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def is_deep(data: bytes) -> bool:
    """Returns whether the bytes are those of a PNG file of 16 bits."""
    return data.startswith(PNG) and data[24:25] == b"\x10"


def check_bits(deep: bool, pixels: Pixels) -> None:
    """Raises Refused for a file of 8 bits if the model takes 16 bits.

    Args:
        deep: Bool, whether the file has more than 8 bits.
        pixels: The images that the model takes.

    Raises:
        Refused: If the model takes images of 16 bits, and the file has 8.
    """
    if pixels.bits == 16 and not deep:
        raise Refused(
            400,
            f"The model takes 16-bit images, with pixels from {pixels.words}. Received: an 8-bit file. Send the "
            f"original as a 16-bit PNG or TIFF file",
        )


def read_image(data: bytes, spec: tf.TensorSpec, limits: Limits, pixels: Pixels | None = None) -> np.ndarray:
    """Returns an image file as a batch of one, as `read_with_size` does, without the size."""
    return read_with_size(data, spec, limits, pixels)[0]


def read_with_size(
    data: bytes, spec: tf.TensorSpec, limits: Limits, pixels: Pixels | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns an image file as a batch of one, as the input takes it, and the size that it has in the file.

    The batch has the channels, the size, the range and the dtype of the input.

    Files are turned upright by the orientation that they state, and a PNG file of 16 bits keeps them.

    Args:
        data: Bytes of a PNG, JPEG or TIFF file.
        spec: Shape and dtype of the signature's input.
        limits: Limits of a request.
        pixels: The images that the model takes; None for images in [0, 1].

    Raises:
        Refused: If the signature takes no images, or the file is bad, too large, or of another size or depth.
    """
    shape = spec.shape.as_list()
    first = (pixels or Pixels()).channels_first(shape)
    size = shape[2:4] if first else shape[1:3]
    channels = shape[1] if first else shape[-1]
    if len(shape) != 4 or channels not in CHANNELS:
        raise Refused(400, f"This signature takes no image files; its input has the shape {spec.shape}")
    pixels = pixels or Pixels()
    if not pixels.from_files:
        raise Refused(
            400,
            f"The model takes pixels from {pixels.words}. Send JSON instead of a file",
        )
    image = _decode(data, channels, limits, any_numbers=pixels.stored is not None)[None]
    own = (image.shape[1], image.shape[2])
    if 0 in own:  # newer versions of tifffile read some damaged files so
        raise Refused(
            400, "The image has no pixels, so the file may be damaged. Save the image again, and send it"
        )
    check_bits(image.dtype != np.uint8, pixels)
    if spec.dtype == tf.uint8 and image.dtype != np.uint8:
        raise Refused(
            400,
            "This export takes 8-bit images, and the file has more bits. Export the model with "
            "image_dtype='uint16' or 'float32', or send an 8-bit file",
        )
    # NumPy does only the steps that are needed: one eager operation of TensorFlow takes longer than all the work
    # on a small image.
    fits = all(n in (None, given) for n, given in zip(size, image.shape[1:3], strict=True))
    if not fits and None in size:
        wanted = " x ".join("any" if n is None else str(n) for n in size)
        given = f"{image.shape[1]} x {image.shape[2]}"
        raise Refused(400, f"The image must have the size {wanted} (height x width); received {given}")
    stored = spec.dtype.is_integer
    if (
        fits
        and stored
        and pixels.stored is None
        and image.dtype == spec.dtype.as_numpy_dtype
        and pixels.order != "bgr"
    ):
        return np.moveaxis(image, -1, 1) if first else image, own
    largest = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
    values = pixels.fractions(image.astype("float32"), largest)
    values = values if pixels.stored is None else np.clip(values, 0, 1)
    if not fits:
        values = tf.image.resize(values, size, antialias=True).numpy()
    if not stored:
        values = pixels.scaled(values).astype("float32")
    else:
        values = values[..., ::-1] if pixels.order == "bgr" else values
        values = np.rint(values * np.float32(spec.dtype.max)).astype(spec.dtype.as_numpy_dtype)
    return np.moveaxis(values, -1, 1) if first else values, own


def _decode(data: bytes, channels: int, limits: Limits, any_numbers: bool) -> np.ndarray:
    """The pixels of a file, uint8, uint16 or float32 `(height, width, channels)`, upright."""
    if data.startswith(_TIFF):
        image = read_tiff(data, limits, any_numbers)
        if image.shape[-1] == channels:
            return image
        if {image.shape[-1], channels} != {1, 3}:
            raise Refused(
                400, f"The image has {count_of(image.shape[-1], 'channel')}, but the model takes {channels}"
            )
        return tf.image.rgb_to_grayscale(tf.constant(image)).numpy() if channels == 1 else np.repeat(image, 3, -1)
    header = check_image(data, limits)
    try:
        if header.format == "JPEG":
            image = decode_jpeg(data, channels, header.mode == "CMYK").numpy()
            return upright(image, orientation_in(header.info.get("exif")))
        image = tf.io.decode_png(data, channels, tf.uint16 if is_deep(data) else tf.uint8).numpy()
        return upright(image, orientation_in(png_exif(io.BytesIO(data))))
    except tf.errors.InvalidArgumentError:
        raise Refused(400, "The image cannot be decoded; it may be truncated") from None
