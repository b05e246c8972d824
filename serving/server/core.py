"""The inside of the server: it finds the version, reads the request, asks the model, and writes the answer."""

import asyncio
import gc
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import tensorflow as tf
from fastapi import Request, Response

from dropzoo.common.images import sides_of
from dropzoo.common.pixels import Pixels
from dropzoo.serving.server.arrays import read_arrays
from dropzoo.serving.server.batching import Arrays, Batcher
from dropzoo.serving.server.bodies import check_encoding, unzipped
from dropzoo.serving.server.files import read_with_size
from dropzoo.serving.server.forms import FORMS, encoded, form_of, gzipped
from dropzoo.serving.server.hints import send_file
from dropzoo.serving.server.http import answer, content_type
from dropzoo.serving.server.limits import Limits, Refused
from dropzoo.serving.server.metrics import Metrics
from dropzoo.serving.server.models import Models
from dropzoo.serving.server.pictures import pictures
from dropzoo.serving.server.requests import check_finite, pixels_of, read_predict, to_arrays, to_json
from dropzoo.serving.server.versions import Signature, Version, Versions

# Numbers in JSON take 10 to 20 bytes each.
_SMALLER = (
    "An image file or an array (application/x-npy) is smaller than JSON; dropzoo serve --max-body-mib allows more"
)
_LARGE = 2**16  # bytes; a larger request or answer is read or written in a thread, so that others continue
_log = logging.getLogger("dropzoo.serving")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Question(NamedTuple):
    """The content of a request, after it was read and checked."""

    signature: Signature
    form: str  # of the answer: "instances" or "inputs"
    inputs: Arrays
    pixels: int
    size: tuple[int, int] | None = None  # of the image in a file, before it was resized


class Server:
    """The state that all routes share: the versions, the limits, the threads and the metrics.

    Args:
        folder: Folder of a model's versions, or of several models.
        limits: Limits of requests.
        keep: Int, how many of the newest versions to serve.
    """

    def __init__(self, folder: Path, limits: Limits, keep: int) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.models = Models(folder, keep)
        self.pool = ThreadPoolExecutor(4, "predict")
        self.arriving, self.settled = 0, False
        # Weak, so that a batcher goes together with the version whose signature it serves.
        self._batchers: WeakKeyDictionary[Signature, Batcher] = WeakKeyDictionary()

    @property
    def versions(self) -> Versions:
        """The versions of the only model, or of the first by name."""
        return self.models.first

    def batcher(self, signature: Signature) -> Batcher:
        """Returns the batcher of a signature; each signature has its own."""
        if (found := self._batchers.get(signature)) is None:
            ran = self.metrics.batch_size.observe
            found = Batcher(signature.run, self.pool, self.limits, lambda: self.arriving, ran)
            self._batchers[signature] = found
        return found

    async def body(self, request: Request) -> bytes:
        """Returns the request's body, and stops reading at its limit.

        Raises:
            Refused: If the body is too large or arrives too slowly.
        """
        limit = self.limits.max_body_bytes
        is_gzip = check_encoding(request.headers.get("content-encoding", ""))
        if int(request.headers.get("content-length", 0)) > limit:  # the HTTP parser lets only numbers through
            raise _too_large(limit)
        self.arriving += 1
        try:
            body = await asyncio.wait_for(_read(request, limit), self.limits.body_timeout_s)
        except asyncio.TimeoutError:  # another class than the built-in TimeoutError before Python 3.11
            raise Refused(408, f"The body did not arrive within {self.limits.body_timeout_s:g} s") from None
        finally:
            self.arriving -= 1
        if not is_gzip:
            return body
        return await self._in_thread(unzipped, body, self.limits)

    async def predict(self, request: Request, name: str, version: str | None, asked: str | None) -> Response:
        """Answers a Predict request (JSON, an image file or an array) in the form that the client accepts.

        Args:
            request: The request.
            name: Name of the model.
            version: Number of the version, a string; None for the newest.
            asked: Name of the signature that the address asks for; None if it asks for none.

        Raises:
            Refused: If the request is bad, or the server is busy.
        """
        found = self.models.of(name).find(name, version)
        form = form_of(request.headers.get("accept", ""))
        body = await self.body(request)
        media = content_type(request, body)
        if media.startswith(("image/", "application/x-np")):
            signature = found.signature(asked or request.query_params.get("signature_name") or "serving_default")
            read = _from_file if media.startswith("image/") else _from_arrays
            question = await self._in_thread(read, body, signature, self.limits)
        elif len(body) > _LARGE:
            question = await self._in_thread(_from_json, body, found, asked, self.limits)
        else:
            question = _from_json(body, found, asked, self.limits)
        outputs = await self._ask(question)
        large = form != FORMS[0] or sum(value.nbytes for value in outputs.values()) > _LARGE
        write = partial(_written, request, form, outputs, question, found)
        return await self._in_thread(write) if large else write()

    async def picture(self, request: Request, name: str) -> Response:
        """Answers an image file with the data that the page shows.

        Args:
            request: The request.
            name: Name of the model.

        Raises:
            Refused: If the request is bad, the model does not take one image, or no output can be shown.
        """
        found = self.models.of(name).find(name)
        body = await self.body(request)
        asked = "predict_mc" if "predict_mc" in found.signatures else "serving_default"
        question = await self._in_thread(_from_file, body, found.signature(asked), self.limits)
        outputs = await self._ask(question)
        shown = await self._in_thread(_shown, outputs, found)
        return answer({"version": str(found.number), "signature": asked, **shown})

    async def _in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: function(*args, **kwargs))

    async def _ask(self, question: _Question) -> Arrays:
        """Returns the model's answer, and turns TensorFlow's errors into refusals."""
        try:
            return await self.batcher(question.signature)(question.inputs, question.pixels)
        except tf.errors.InvalidArgumentError as error:
            _log.info("Refused by the model: %s", error.message)
            message = "The model cannot read this input; it may be truncated, or of the wrong size"
            raise Refused(400, message) from None
        except tf.errors.ResourceExhaustedError:
            raise Refused(503, "The server does not have enough memory for this request") from None

    def status(self, name: str, version: str | None) -> Response:
        """Answers with the state of one version, or of all versions if `version` is None."""
        states, versions = [], self.models.of(name)
        if name == versions.name:
            for number, message in sorted(versions.failed.items()):
                if number not in versions.available:
                    states.append(_state(number, "END", "UNKNOWN", message))
            states += [_state(number, "AVAILABLE", "OK", "") for number in versions.available]
        states = [s for s in states if version in (None, s["version"])]
        if not states:
            versions.find(name, version)  # raises Refused
        return answer({"model_version_status": sorted(states, key=lambda s: -int(str(s["version"])))})

    def metadata(self, name: str, version: str | None) -> Response:
        """Answers with the signatures of one version, or of the newest if `version` is None."""
        found = self.models.of(name).find(name, version)
        spec = {"name": name, "signature_name": "", "version": str(found.number)}
        return answer({"model_spec": spec, "metadata": {"signature_def": {"signature_def": found.metadata}}})

    def info(self, name: str) -> Response:
        """Answers with what the `info.json` of the newest version says: inputs, outputs, names of classes."""
        return answer(self.models.of(name).find(name).facts)

    def listing(self) -> Response:
        """Answers with the names of the models and the versions of each."""
        known = {name: sorted(each.available) for name, each in sorted(self.models.by_name.items())}
        return answer({"models": [{"name": name, "versions": numbers} for name, numbers in known.items()]})

    def health(self) -> Response:
        """Answers whether a version is served."""
        numbers = sorted(version.number for version in self.models.loaded())
        status = "ok" if numbers else "no version is loaded"
        return answer({"status": status, "versions": numbers}, 200 if numbers else 503)

    def settle(self) -> None:
        """Hides everything that is loaded from the garbage collector.

        Requests create so many lists that the collector runs often, and it would sometimes search all objects of
        TensorFlow. Call this only in a process that does nothing but serve. `watch` calls it again when versions
        change, so that old versions are freed.
        """
        self.settled = True
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    async def watch(self, poll_seconds: float) -> None:
        """Looks for new versions every `poll_seconds` seconds, until it is cancelled."""
        while True:
            await asyncio.sleep(poll_seconds)
            try:
                before = self.models.loaded()
                await asyncio.to_thread(self.models.refresh)
                if self.settled and self.models.loaded() != before:
                    self.settle()
            except Exception:
                _log.exception("Looking for versions failed")


async def _read(request: Request, limit: int) -> bytes:
    """The body of a request, of at most `limit` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> Refused:
    """The refusal of a body of more than `limit` bytes."""
    return Refused(413, f"The body may have {limit:,} bytes at most", _SMALLER)


def _from_file(body: bytes, signature: Signature, limits: Limits) -> _Question:
    """The content of a request whose body is one image file."""
    if not body:
        raise Refused(400, "The body is empty, but must be an image file", send_file())
    if len(signature.specs) != 1:
        names = ", ".join(signature.specs)
        raise Refused(400, f"This model takes several inputs ({names}), so one file is not enough: send JSON")
    ((name, spec),) = signature.specs.items()
    if name in signature.files:
        message = f'The signature {signature.name!r} takes files in JSON, as {{"b64": ...}}'
        raise Refused(400, message, "To send a file as the body, leave out `signature_name`")
    image, size = read_with_size(body, spec, limits, signature.pixels.get(name))
    pixels = max(pixels_of(image.shape), signature.least)
    return _Question(signature, "instances", {name: image}, pixels, size)


def _from_arrays(body: bytes, signature: Signature, limits: Limits) -> _Question:
    """The content of a request whose body is an array of NumPy, or several."""
    inputs, pixels = read_arrays(body, signature, limits)
    taken = {name: signature.pixels.get(name) or Pixels() for name in inputs}
    shapes = [
        sides_of(array.shape, taken[name].channels_first(array.shape))
        for name, array in inputs.items()
        if array.ndim == 4
    ]
    size = (shapes[0][0], shapes[0][1]) if len(shapes) == 1 else None
    return _Question(signature, "instances", inputs, pixels, size)


def _shown(outputs: Arrays, version: Version) -> dict[str, Any]:
    """The data that the page shows for an answer."""
    check_finite(outputs)
    return pictures(outputs, version.outputs)


def _written(request: Request, form: str, outputs: Arrays, question: _Question, version: Version) -> Response:
    """The answer in the form that the client accepts, compressed if the client accepts that."""
    check_finite(outputs)
    if form == FORMS[0]:
        body = to_json(outputs, question.form)
    else:
        asked = request.query_params.get("output", "")
        body = encoded(form, outputs, version.outputs, question.size, asked)
    headers = {"vary": "accept, accept-encoding"}
    packed = gzipped(body, request.headers.get("accept-encoding", ""), form)
    if packed is not None:
        body, headers["content-encoding"] = packed, "gzip"
    return Response(body, media_type=form, headers=headers)


def _from_json(body: bytes, version: Version, asked: str | None, limits: Limits) -> _Question:
    """The content of a Predict request in JSON."""
    request = read_predict(body, asked)
    signature = version.signature(request.signature_name)
    inputs, pixels = to_arrays(request, signature, limits)
    return _Question(signature, request.form, inputs, pixels)


def _state(number: int, name: str, code: str, message: str) -> dict[str, str | dict[str, str]]:
    """A version's entry in the status of a model."""
    return {"version": str(number), "state": name, "status": {"error_code": code, "error_message": message}}
