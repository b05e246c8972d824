"""The bodies of requests as bytes: compressed ones, and what a body is by its first bytes."""

import zlib

from dropzoo.serving.server.limits import Limits, Refused

#: The first bytes of the files that a body may be, and the media type of each.
_STARTS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"II+\0": "image/tiff",
    b"MM\0+": "image/tiff",
    b"\x93NUMPY": "application/x-npy",
    b"PK\x03\x04": "application/x-npz",
}
#: Other names of media types, in Content-Type and in Accept.
ALIASES = {
    "application/npy": "application/x-npy",
    "application/npz": "application/x-npz",
    "application/zip": "application/x-npz",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/tif": "image/tiff",
    "image/x-png": "image/png",
    "text/json": "application/json",
}
_MOST_MEMBERS = 100
#: Types with which clients send a file if they do not know its type.
UNTOLD = ("", "application/x-www-form-urlencoded", "application/octet-stream", "binary/octet-stream", "*/*")


def kind_of(body: bytes) -> str | None:
    """Returns the media type of a file by its first bytes, or None if the server does not read such files."""
    return next((kind for start, kind in _STARTS.items() if body.startswith(start)), None)


def is_base64(body: bytes) -> bool:
    """Returns whether a body or a text begins as a PNG, JPEG or TIFF file in base64, or as a data URL."""
    return body.startswith((b"data:", b"iVBORw0", b"/9j/", b"SUkqA", b"TU0AK"))


def check_encoding(encoding: str) -> bool:
    """Returns whether a body is compressed by gzip.

    Args:
        encoding: The header `Content-Encoding`.

    Raises:
        Refused: If it is encoded in another way.
    """
    name = encoding.strip().lower()
    if name not in ("", "identity", "gzip", "x-gzip"):
        raise Refused(
            415, f"A body may be compressed by gzip or not at all. Received: Content-Encoding: {name[:40]}"
        )
    return name in ("gzip", "x-gzip")


def unzipped(body: bytes, limits: Limits) -> bytes:
    """Returns the content of a body that is compressed by gzip; it is never larger than a body may be.

    Args:
        body: The compressed bytes.
        limits: Limits of a request.

    Raises:
        Refused: If the bytes are not gzip, are cut short, or hold too much.
    """
    out = bytearray()
    rest = body
    try:
        for _ in range(_MOST_MEMBERS):  # a file may have several members; each one copies the rest of the body
            member = zlib.decompressobj(wbits=31)
            out += member.decompress(rest, limits.max_body_bytes + 1 - len(out))
            if len(out) > limits.max_body_bytes:
                raise Refused(413, f"The unpacked body may have {limits.max_body_bytes:,} bytes at most")
            if not member.eof:
                raise Refused(400, "The gzip body is cut short")
            rest = member.unused_data
            if not rest:
                return bytes(out)
    except zlib.error:
        raise Refused(
            400,
            "The header Content-Encoding says gzip, but the body is not gzip. Leave out the header, or compress "
            "the body",
        ) from None
    raise Refused(400, f"A gzip body may have {_MOST_MEMBERS} members at most: compress it as a whole")
