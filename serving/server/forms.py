"""The forms of an answer that a client can ask for with `Accept`: JSON, a mask as PNG or TIFF, arrays of NumPy."""

import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from dropzoo.common.checks import did_you_mean
from dropzoo.serving.server.batching import Arrays
from dropzoo.serving.server.bodies import ALIASES
from dropzoo.serving.server.info import Output
from dropzoo.serving.server.limits import Refused

#: The media types of an answer; the first is the default.
FORMS = ("application/json", "image/png", "image/tiff", "application/x-npy", "application/x-npz")
_MAIN = ("mean", "probabilities", "values")  # an answer has one of these
_SMALL = 1024  # bytes; a smaller answer is not compressed


def form_of(accept: str) -> str:
    """Returns the form that a client prefers among those that the server writes.

    Args:
        accept: The header `Accept`; empty if there is none.

    Raises:
        Refused: If the server writes none of the forms that the client accepts.
    """
    asked: list[str] = []
    accepted: list[tuple[float, bool, int, str]] = []
    for part in accept.split(","):
        media, *parameters = (each.strip().lower() for each in part.split(";"))
        if not media:
            continue
        asked.append(media)
        weight = _weight(parameters)
        if (known := _known(media)) and weight > 0:
            accepted.append((weight, "*" not in media, -len(asked), known))  # among equals, a name, then the first
    if not asked:
        return FORMS[0]
    if not accepted:
        raise Refused(406, f"An answer may be {', '.join(FORMS)}. Received: Accept: {', '.join(asked)[:80]}")
    return max(accepted)[-1]


def _weight(parameters: Sequence[str]) -> float:
    """The weight `q` of an accepted type, 1 by default."""
    try:
        return float(next((each[2:] for each in parameters if each.startswith("q=")), "1"))
    except ValueError:
        return 0.0


def _known(media: str) -> str | None:
    if media in ("*/*", "application/*", "text/*"):
        return FORMS[0]
    media = "image/png" if media == "image/*" else ALIASES.get(media, media)
    return media if media in FORMS else None


def encoded(
    form: str, answer: Arrays, outputs: Sequence[Output], size: tuple[int, int] | None, asked: str
) -> bytes:
    """Returns an answer in a form other than JSON.

    Args:
        form: One of `FORMS`.
        answer: The outputs of the signature, by name.
        outputs: The descriptions of the model's outputs.
        size: `(height, width)` of the image before it was resized to the model's size; None if it is not known.
        asked: Name of the output to write; empty for the mask as an image, and for the main output as npy.

    Raises:
        Refused: If the answer does not have this form, or there is no such output.
    """
    if asked and asked not in answer:
        raise Refused(
            400,
            f"There is no output {asked!r}.{did_you_mean(asked, answer)} The outputs are: "
            f"{', '.join(sorted(answer))}",
        )
    if form == "application/x-npz":
        return _npz({asked: answer[asked]} if asked else answer)
    if form == "application/x-npy":
        return _npy(answer[asked] if asked else _main(answer, outputs)[0])
    rows = len(next(iter(answer.values())))
    if rows != 1:
        raise Refused(
            400,
            f"A mask can only be returned for one image; the request has {rows}. Ask for Accept: "
            f"application/x-npz",
        )
    if not asked:
        values, kind = _main(answer, outputs)
        sized = in_size(values[0], size)
        return _image(form, sized if kind == "regression" else _labels(sized, outputs), "")
    return _image(form, in_size(answer[asked][0], size), asked)


def _main(answer: Arrays, outputs: Sequence[Output]) -> tuple[np.ndarray, str]:
    """The main output of an answer, and its kind."""
    start = f"{outputs[0].name}_" if len(outputs) > 1 else ""
    found = next((answer[start + name] for name in _MAIN if start + name in answer), None)
    if found is None:
        raise Refused(
            400, f"Name one of the outputs, such as ?output={sorted(answer)[0]}: {', '.join(sorted(answer))}"
        )
    return found, outputs[0].kind


def likeliest(p: np.ndarray, kind: str) -> np.ndarray:
    """Returns the class of each pixel, uint8 or uint16.

    For several labels, it is the number of the likeliest label plus 1, or 0 where no label is above 0.5.

    Args:
        p: Probabilities `(height, width, classes)`. A single probability is that of the second of two classes.
        kind: One of `KINDS`.
    """
    largest = max(1, p.shape[-1] - 1)
    if kind == "multi_label":
        best, largest = np.where(p.max(-1) > 0.5, p.argmax(-1) + 1, 0), p.shape[-1]
    else:
        best = p.argmax(-1) if p.shape[-1] > 1 else p[..., 0] > 0.5
    return best.astype(np.uint8 if largest < 256 else np.uint16)


def _labels(p: np.ndarray, outputs: Sequence[Output]) -> np.ndarray:
    """The class of each pixel, as `likeliest` returns it."""
    if p.ndim != 3:
        raise Refused(406, "This model returns no mask. Ask for Accept: application/json, or application/x-npz")
    return likeliest(p, outputs[0].kind)


def in_size(values: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Returns a map in the size that the image had before it was resized for the model."""
    if size is None or values.ndim not in (2, 3) or values.shape[:2] == size:
        return values
    flat = values.astype(np.float32).reshape(*values.shape[:2], -1)
    mode = Image.Resampling.BILINEAR if values.dtype.kind == "f" else Image.Resampling.NEAREST
    planes = [np.asarray(Image.fromarray(flat[..., i]).resize(size[::-1], mode)) for i in range(flat.shape[-1])]
    return np.stack(planes, -1).astype(values.dtype).reshape(*size, *values.shape[2:])


def _image(form: str, values: np.ndarray, name: str) -> bytes:
    values = values.astype(np.uint8) if values.dtype == bool else values
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    file = io.BytesIO()
    if form == "image/png":
        if values.ndim == 2 and values.dtype == np.int32 and values.min() >= 0 and values.max() < 2**16:
            values = values.astype(np.uint8 if values.max() < 256 else np.uint16)  # the output `classes`
        if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
            raise Refused(
                406,
                f"PNG can only hold a mask, not {name or 'values'}: ask for Accept: image/tiff, or "
                f"application/x-npy",
            )
        Image.fromarray(values).save(file, "PNG", compress_level=3)
        return file.getvalue()
    if values.ndim not in (2, 3):
        raise Refused(406, f"TIFF can only hold maps, and {name} is not a map: ask for Accept: application/x-npz")
    planes = values if values.ndim == 2 else np.moveaxis(values, -1, 0)
    how = None if values.ndim == 2 else "separate"
    options = {"photometric": "minisblack", "compression": "zlib", "metadata": None}
    tifffile.imwrite(file, planes, planarconfig=how, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _npz(arrays: Arrays) -> bytes:
    file, whole = io.BytesIO(), dict[str, Any](arrays)
    np.savez(file, **whole)
    return file.getvalue()


def gzipped(body: bytes, accept_encoding: str, form: str) -> bytes | None:
    """Returns a body compressed by gzip if the client accepts that and it is worth it; else None.

    Args:
        body: The answer.
        accept_encoding: The header `Accept-Encoding`.
        form: The form of the answer. A PNG or TIFF file is compressed already.
    """
    if len(body) < _SMALL or form.startswith("image/"):
        return None
    parts = [part.replace(" ", "").partition(";q=") for part in accept_encoding.lower().split(",")]
    weights = {name: _weight([f"q={q or 1}"]) for name, _, q in parts}
    if not next((weights[name] for name in ("gzip", "x-gzip", "*") if name in weights), 0) > 0:
        return None
    packer = zlib.compressobj(1, wbits=31)  # the fastest level: a model's answer should not wait
    return packer.compress(body) + packer.flush()
