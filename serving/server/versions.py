"""The versions of a served model: folders with a number, loaded and replaced while requests go on.

A request holds the version that answers it, so that one that is replaced lives until its last request is done.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2

from dropzoo.serving.montecarlo.statistics import KINDS
from dropzoo.serving.server.batching import Batcher, Run
from dropzoo.serving.server.requests import Arrays, Refused

# Operations that reach outside the model. A SavedModel is a program: one that has these is not served.
_REACHING_OUT = {
    "ReadFile",
    "WriteFile",
    "MatchingFiles",
    "PyFunc",
    "PyFuncStateless",
    "EagerPyFunc",
    "Rpc",
    "RpcCall",
}
Mark = frozenset[tuple[str, int, int, int]]
_log = logging.getLogger("dropzoo.serving")


@dataclass(frozen=True)
class Signature:
    """A function of the model that requests can call."""

    specs: dict[str, tf.TensorSpec]
    predict: Batcher
    least: int = 0  # the pixels of the one size that the model brings images to, where there is one


@dataclass(frozen=True)
class Version:
    """One loaded SavedModel."""

    number: int
    signatures: dict[str, Signature]
    metadata: dict[str, Any]  # the signature definitions as TensorFlow Serving shows them
    class_names: list[str] | None
    task: str
    held: Any  # signatures die with what they were loaded from

    def signature(self, name: str) -> Signature:
        if name not in self.signatures:
            there = ", ".join(sorted(self.signatures))
            raise Refused(400, f'Serving signature name: "{name}" not found in signature def; there is {there}')
        return self.signatures[name]


class Versions:
    """The newest versions in a folder.

    Args:
        folder: With a SavedModel in each of its folders 1, 2, ...
        batcher: Makes what calls a signature.
        keep: Int, how many of the newest versions to serve.
    """

    def __init__(self, folder: Path, batcher: Callable[[Run], Batcher], keep: int = 2) -> None:
        if (folder / "saved_model.pb").exists():
            raise ValueError(f"Expected the folder of all versions, {folder.parent}. Received one: {folder}")
        if keep < 1:
            raise ValueError(f"`keep` must be a positive int. Received: keep={keep!r}")
        self.folder, self.name, self._batcher, self._keep = folder, folder.resolve().name, batcher, keep
        self._marks: dict[int, Mark] = {}
        self.available: dict[int, Version] = {}  # replaced as a whole, never changed
        self.failed: dict[int, str] = {}  # so too

    def refresh(self) -> None:
        """Loads what is new or was replaced, newest first, and lets go of what is old or gone."""
        folders = {int(p.name): p for p in self.folder.glob("*") if p.name.isascii() and p.name.isdigit()}
        marks = {number: mark for number, p in folders.items() if (mark := _mark(p))}
        self._marks = {n: mark for n, mark in self._marks.items() if marks.get(n) == mark}
        self.failed = {n: message for n, message in self.failed.items() if n in self._marks}
        wanted: dict[int, Version] = {}
        for number in sorted(marks, reverse=True):
            if len(wanted) == self._keep:
                break
            tried = number in self._marks and (number in self.available or number in self.failed)
            if not tried and (loaded := self._load(folders[number])):
                self.available = self.available | {number: loaded}  # serves at once, before older ones load
            self._marks[number] = marks[number]
            if number in self.available:  # also one whose replacement failed
                wanted[number] = self.available[number]
        if wanted.keys() != self.available.keys():
            self.available = wanted

    def _load(self, folder: Path) -> Version | None:
        try:
            loaded = load(folder, self._batcher)
        except Exception as error:  # whatever is wrong with it, the other versions go on
            message = str(error).partition("\n")[0]
            self.failed = self.failed | {int(folder.name): message}
            _log.warning("Version %s of %s cannot be served: %s", folder.name, self.name, message)
            return None
        _log.info("Version %s of %s is served", folder.name, self.name)
        return loaded

    def find(self, name: str, version: str | None = None) -> Version:
        """The version of that number, or the newest."""
        available = self.available
        if name == self.name and available:
            if version is None:
                return available[max(available)]
            if version in (named := {str(number): each for number, each in available.items()}):
                return named[version]
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        there = ", ".join(map(str, sorted(available))) or "none"
        raise Refused(404, f"Servable not found for request: {asked}; there is {self.name}, versions: {there}")


def _mark(folder: Path) -> Mark | None:
    """Changes when an export takes another's place, and when more of one arrives that is being copied here.

    None where there is none.
    """
    marks: list[tuple[str, int, int, int]] = []
    for path in (folder / "saved_model.pb", *folder.glob("variables/*"), folder / "assets.extra" / "info.json"):
        try:
            stat = path.stat()
        except OSError:
            if not marks:
                return None
            continue
        marks.append((path.name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return frozenset(marks)


def load(folder: Path, batcher: Callable[[Run], Batcher]) -> Version:
    """Reads a SavedModel and calls each signature once, so that the first request finds it warm.

    Raises:
        ValueError: if the model has operations that reach outside it.
    """
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0]
    nodes = [*graph.graph_def.node, *(n for f in graph.graph_def.library.function for n in f.node_def)]
    if reaching := sorted({node.op for node in nodes} & _REACHING_OUT):
        raise ValueError(f"The model has operations that reach outside it: {', '.join(reaching)}")
    shown = {
        name: json_format.MessageToDict(
            definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, definition in graph.signature_def.items()
    }
    loaded = tf.saved_model.load(str(folder))
    signatures: dict[str, Signature] = {}
    class_names, task, least = _info(folder)
    for name, function in loaded.signatures.items():
        specs = dict(function.structured_input_signature[1])
        _warm(function, specs)
        signatures[name] = Signature(specs, batcher(_runner(function)), least)
    if not signatures:
        raise ValueError("The model has no signatures")
    return Version(int(folder.name), signatures, shown, class_names, task, loaded)


def _runner(function: Callable[..., dict[str, tf.Tensor]]) -> Run:
    def run(inputs: Arrays) -> Arrays:
        outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def _warm(function: Callable[..., Any], specs: dict[str, tf.TensorSpec]) -> None:
    black = tf.io.encode_png(np.zeros((32, 32, 1), "uint8"))
    inputs = {}
    for name, spec in specs.items():
        shape = [1, *(32 if n is None else n for n in spec.shape[1:])]
        inputs[name] = tf.fill(shape, black) if spec.dtype == tf.string else tf.zeros(shape, spec.dtype)
    function(**inputs)


def _info(folder: Path) -> tuple[list[str] | None, str, int]:
    """Class names, task and the pixels of `image_size` from `assets.extra/info.json`, where they are there."""
    try:
        info = dict(orjson.loads((folder / "assets.extra" / "info.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None, KINDS[0], 0
    names, task, size = info.get("class_names"), info.get("task"), info.get("image_size")
    known = size if isinstance(size, list) and all(isinstance(n, int) for n in size) else [0]
    return (
        [str(name) for name in names] if isinstance(names, list) else None,
        task if task in KINDS else KINDS[0],
        math.prod(known),
    )
