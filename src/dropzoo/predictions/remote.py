"""A running server as a predictor: images are sent as arrays, and the answers come back as arrays."""

import contextlib
import hashlib
import http.client
import io
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

import numpy as np

from dropzoo.common.checks import unknown
from dropzoo.common.images import image_shape
from dropzoo.common.pixels import Pixels
from dropzoo.common.words import count_of
from dropzoo.runs.inputs import feeding_of
from dropzoo.runs.predictor import Predictor, is_of_pixels
from dropzoo.runs.statistics import Arrays, arranged

_SECONDS = 300.0


@dataclass(frozen=True)
class _Connection:
    """The address of one model on a server, and the token."""

    address: str
    token: str | None

    def get(self, path: str = "") -> Any:
        """Returns the JSON at a path."""
        answer = self.send(path, None, {})
        try:
            return json.loads(answer)
        except ValueError:
            raise self.other(answer[:200].decode(errors="replace")) from None

    def other(self, said: str) -> ValueError:
        """Returns the error for something at the address that answers as no dropzoo server does."""
        said = " ".join(said.split())  # of a page in HTML
        return ValueError(
            f"Expected a dropzoo server at {self.address}. Received another answer: {said}. Pass the address that "
            "dropzoo serve prints, such as http://127.0.0.1:8501"
        )

    def send(self, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        """Returns the answer to a request, or raises a ValueError with what the server says."""
        if self.token:
            headers = {**headers, "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.address + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            try:
                said = json.loads(said)["error"]
            except (ValueError, KeyError, TypeError):
                said = said[:200]
            if error.code == 404 and path == "/v1/models":
                raise self.other(f"status 404, {said}") from error
            way = " (pass --token, or set DROPZOO_TOKEN)" if error.code == 401 else ""
            raise ValueError(f"The server refused the request with status {error.code}: {said}{way}") from error
        except (urllib.error.URLError, TimeoutError, OSError) as error:
            reason = getattr(error, "reason", error)
            said = f"The server at {self.address} does not answer: {reason}. Start it with dropzoo serve"
            raise ValueError(said) from error
        except http.client.HTTPException as error:  # another protocol, or an answer that broke off
            if path == "/v1/models":
                raise self.other(f"{type(error).__name__}, {error}") from error
            raise ValueError(
                f"The answer of the server at {self.address} broke off: {error}. Try again"
            ) from error


def connect(address: str, token: str | None = None) -> Predictor:
    """Returns a predictor that asks a running `dropzoo serve`.

    Args:
        address: Str, the address of the server, or of one of its models: `http://host:8501`, or
            `http://host:8501/v1/models/NAME`.
        token: Str, the token of the server, or None.

    Raises:
        ValueError: If nothing answers there, several models are served and none is named, or the model does not
            take one image.
    """
    base, _, rest = _checked(address).rstrip("/").partition("/v1/models")
    connection = _Connection(base, token)
    name, _, version = rest.strip("/").partition(":")[0].partition("/")
    if version:
        raise ValueError(
            f"`dropzoo predict` uses the newest version of a model. Leave out /{version}: {base}/v1/models/{name}"
        )
    found = connection.get("/v1/models")
    if not isinstance(found, dict) or "models" not in found:
        raise connection.other(str(found)[:200])
    models = {each["name"]: each.get("versions") or [] for each in found["models"]}
    names = list(models)
    if not name and len(names) != 1:
        raise ValueError(f"The server has several models: {', '.join(names)}. Name one: {base}/v1/models/NAME")
    name = name or names[0]
    if name not in names:
        raise unknown("model of the server", name, names)
    return _predictor(connection, name, max(map(int, models[name]), default=None))


def _checked(address: str) -> str:
    """Returns an address with its scheme, or raises a ValueError if it is not an address."""
    with contextlib.suppress(ValueError):  # of brackets that do not close, or a port that is no number
        parts = urllib.parse.urlsplit(address if "//" in address else f"http://{address}")
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if fits and not any(sign.isspace() for sign in address):
            return parts.geturl()
    raise ValueError(f"A server's address must look like http://127.0.0.1:8501 (--server). Received: {address!r}")


def _predictor(connection: _Connection, model: str, version: int | None) -> Predictor:
    """Returns the predictor of one version, so that all answers are those of one model."""
    path = f"/v1/models/{urllib.parse.quote(model)}"
    info = connection.get(f"{path}/info")
    digest = hashlib.blake2b(json.dumps(info, sort_keys=True).encode(), digest_size=8).hexdigest()
    if version is not None:
        path += f"/versions/{version}"
    task = info.get("task", "multi_class")
    signatures = connection.get(f"{path}/metadata")["metadata"]["signature_def"]["signature_def"]
    inputs = signatures["serving_default"]["inputs"]
    outputs = signatures["serving_default"]["outputs"]
    name = "values" if "values" in outputs else "probabilities"
    if len(inputs) != 1 or name not in outputs:
        raise ValueError(
            "The model must take one image and give one answer. "
            f"Received: inputs {', '.join(inputs)}, outputs {', '.join(outputs)}. Send requests to: "
            f"{connection.address}{path}:predict"
        )
    ((_, spec),) = inputs.items()
    sizes = [int(each["size"]) for each in spec["tensor_shape"]["dim"]]
    if len(sizes) != 4:
        raise ValueError(
            f"The model takes no images. It takes arrays of {count_of(len(sizes), 'axis', 'axes')}. Send requests "
            f"to: {connection.address}{path}:predict"
        )
    sizes_or_open = tuple(None if size < 0 else size for size in sizes)
    described = info.get("inputs") or [{}]
    pixels = Pixels(**(described[0].get("pixels") or {}))
    first = pixels.channels_first(sizes_or_open)
    height, width, channels = image_shape(sizes_or_open, first)
    pixels.check_files()
    dtype = {"DT_FLOAT": "float32"}.get(spec["dtype"], spec["dtype"].removeprefix("DT_").lower())
    whole = np.dtype(dtype).kind in "iu"
    stored = Pixels(low=0.0, high=float(np.iinfo(dtype).max), order=pixels.order) if whole else pixels
    feed = feeding_of(stored, dtype, first)
    verb = "predict_mc" if "predict_mc" in signatures else "predict"
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npz", "Accept-Encoding": "identity"}

    def predict(images: np.ndarray) -> Arrays:
        file = io.BytesIO()
        np.save(file, np.asarray(feed(images)))
        with np.load(io.BytesIO(connection.send(f"{path}:{verb}", file.getvalue(), dict(headers)))) as found:
            answers = {name: found[name] for name in found.files}
        if name in answers:
            answers["mean"] = answers.pop(name)
        for other in ("classes", "labels"):
            answers.pop(other, None)
        return arranged(answers, task)

    names = tuple(info["class_names"]) if info.get("class_names") else None
    shape = (height, width, channels or 1)
    of_pixels = is_of_pixels([int(each["size"]) for each in outputs[name]["tensor_shape"]["dim"]])
    count = int(info.get("num_samples") or 1) if verb == "predict_mc" else 1
    served = f"{model}, version {version or 'unknown'}, {digest}"
    facts: dict[str, Any] = {"num_samples": count, "is_map": of_pixels, "task": task, "served": served}
    facts |= {"outputs": frozenset(signatures[verb]["outputs"] if verb in signatures else outputs)}
    return Predictor(predict, shape, names, pixels, **facts)
