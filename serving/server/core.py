"""The inside of the server: it finds the version, reads the request, asks the model, and writes the answer."""

import asyncio
import gc
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import tensorflow as tf
from fastapi import Request, Response

from dropzoo.serving.server.batching import Arrays, Batcher
from dropzoo.serving.server.files import read_image
from dropzoo.serving.server.http import answer, content_type
from dropzoo.serving.server.limits import Limits, Refused
from dropzoo.serving.server.metrics import Metrics
from dropzoo.serving.server.pictures import pictures
from dropzoo.serving.server.requests import read_predict, to_arrays, to_json
from dropzoo.serving.server.versions import Signature, Version, Versions

_LARGE = 2**16  # bytes; a larger request or answer is read or written in a thread, so that others go on
_log = logging.getLogger("dropzoo.serving")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Question(NamedTuple):
    """The content of a request, after it was read and checked."""

    signature: Signature
    form: str  # of the answer: "instances" or "inputs"
    inputs: Arrays
    pixels: int


class Server:
    """The state that all routes share: the versions, the limits, the threads and the metrics.

    Args:
        folder: Folder of a model's versions.
        limits: Limits of requests.
        keep: Int, how many of the newest versions to serve.
    """

    def __init__(self, folder: Path, limits: Limits, keep: int) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.versions = Versions(folder, keep)
        self.pool = ThreadPoolExecutor(4, "predict")
        self.arriving, self.settled = 0, False
        # Weak, so that a batcher goes together with the version whose signature it serves.
        self._batchers: WeakKeyDictionary[Signature, Batcher] = WeakKeyDictionary()

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
        too_large = Refused(413, f"The body may have {limit:,} bytes at most")
        if int(request.headers.get("content-length", 0)) > limit:  # the HTTP parser lets only numbers through
            raise too_large
        self.arriving += 1
        try:
            body = bytearray()
            async with asyncio.timeout(self.limits.body_timeout_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
            return bytes(body)
        except TimeoutError:
            raise Refused(408, f"The body did not arrive within {self.limits.body_timeout_s:g} s") from None
        finally:
            self.arriving -= 1

    async def predict(self, request: Request, name: str, version: str | None, asked: str | None) -> Response:
        """Answers a Predict request in JSON, or an image file as the body.

        Args:
            request: The request.
            name: Name of the model.
            version: Number of the version, a string; None for the newest.
            asked: Name of the signature that the address asks for; None if it asks for none.

        Raises:
            Refused: If the request is bad, or the server is busy.
        """
        found = self.versions.find(name, version)
        body, media = await self.body(request), content_type(request)
        if media.startswith("image/"):
            signature = found.signature(asked or "serving_default")
            question = await self._in_thread(_from_file, body, signature, self.limits)
        elif len(body) > _LARGE:
            question = await self._in_thread(_from_json, body, found, asked, self.limits)
        else:
            question = _from_json(body, found, asked, self.limits)
        outputs = await self._ask(question)
        large = sum(value.nbytes for value in outputs.values()) > _LARGE
        text = await self._in_thread(to_json, outputs, question.form) if large else to_json(outputs, question.form)
        return Response(text, media_type="application/json")

    async def picture(self, request: Request, name: str) -> Response:
        """Answers an image file with the data that the page shows.

        Args:
            request: The request.
            name: Name of the model.

        Raises:
            Refused: If the request is bad, the model does not take one image, or no output can be shown.
        """
        found = self.versions.find(name)
        body = await self.body(request)
        asked = "predict_mc" if "predict_mc" in found.signatures else "serving_default"
        question = await self._in_thread(_from_file, body, found.signature(asked), self.limits)
        outputs = await self._ask(question)
        shown = await self._in_thread(pictures, outputs, found.outputs)
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
        states = []
        if name == self.versions.name:
            for number, message in sorted(self.versions.failed.items()):
                if number not in self.versions.available:
                    states.append(_state(number, "END", "UNKNOWN", message))
            states += [_state(number, "AVAILABLE", "OK", "") for number in self.versions.available]
        states = [s for s in states if version in (None, s["version"])]
        if not states:
            self.versions.find(name, version)  # raises Refused
        return answer({"model_version_status": sorted(states, key=lambda s: -int(str(s["version"])))})

    def metadata(self, name: str, version: str | None) -> Response:
        """Answers with the signatures of one version, or of the newest if `version` is None."""
        found = self.versions.find(name, version)
        spec = {"name": name, "signature_name": "", "version": str(found.number)}
        return answer({"model_spec": spec, "metadata": {"signature_def": {"signature_def": found.metadata}}})

    def health(self) -> Response:
        """Answers whether a version is served."""
        numbers = sorted(self.versions.available)
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
                before = self.versions.available
                await asyncio.to_thread(self.versions.refresh)
                if self.settled and self.versions.available is not before:
                    self.settle()
            except Exception:
                _log.exception("Looking for versions of %s failed", self.versions.name)


def _from_file(body: bytes, signature: Signature, limits: Limits) -> _Question:
    """The content of a request whose body is one image file."""
    if len(signature.specs) != 1:
        names = ", ".join(signature.specs)
        raise Refused(400, f"This model takes several inputs ({names}), so one file is not enough: send JSON")
    ((name, spec),) = signature.specs.items()
    image = read_image(body, spec, limits, signature.pixels.get(name))
    return _Question(signature, "instances", {name: image}, max(math.prod(image.shape[1:3]), signature.least))


def _from_json(body: bytes, version: Version, asked: str | None, limits: Limits) -> _Question:
    """The content of a Predict request in JSON."""
    request = read_predict(body, asked)
    signature = version.signature(request.signature_name)
    inputs, pixels = to_arrays(request, signature, limits)
    return _Question(signature, request.form, inputs, pixels)


def _state(number: int, name: str, code: str, message: str) -> dict[str, str | dict[str, str]]:
    """A version's entry in the status of a model."""
    return {"version": str(number), "state": name, "status": {"error_code": code, "error_message": message}}
