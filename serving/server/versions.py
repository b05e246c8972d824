"""The versions of a served model: numbered folders, loaded and replaced while requests are answered.

A request holds the version that answers it, so a replaced version lives until its last request is done.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2

from dropzoo.common.checks import check_count, did_you_mean
from dropzoo.common.pixels import Pixels
from dropzoo.serving.server.batching import Arrays, Run
from dropzoo.serving.server.info import Output, raw_info, read_info
from dropzoo.serving.server.limits import Refused

# Operations that reach outside the model. A SavedModel is a program, and one with these operations is not served.
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
_SWAP_SECONDS = 0.1  # much longer than an export needs to rename the old folder away and the new one in
#: The name, the inode, the time of the last change and the size of each file of an export.
Mark = frozenset[tuple[str, int, int, int]]
_log = logging.getLogger("dropzoo.serving")


@dataclass(frozen=True, eq=False)
class Signature:
    """A function of the model that requests can call.

    Attributes:
        specs: Shape and dtype of each input.
        run: Function from the inputs of a batch to its outputs.
        least: Int, pixels of the one size to which the model resizes images; 0 if there is no such size.
        pixels: The images that the model takes, by the name of the input.
        files: Names of the inputs that are image files; other inputs of strings are texts.
        doubted: Names of the inputs for which the log already has a warning about the range of the images.
        name: Its name.
        names: The names of all signatures of the version.
    """

    specs: dict[str, tf.TensorSpec]
    run: Run
    least: int = 0
    pixels: dict[str, Pixels] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    doubted: set[str] = field(default_factory=set)
    name: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Version:
    """One loaded SavedModel.

    Attributes:
        number: Int, the name of its folder.
        signatures: Signatures by name.
        metadata: Signature definitions as TensorFlow Serving shows them.
        outputs: The description in `info.json` of each output of the model.
        held: The loaded object, which is kept because the signatures do not work without it.
        facts: The content of `info.json`; empty if there is none.
    """

    number: int
    signatures: dict[str, Signature]
    metadata: dict[str, dict[str, object]]
    outputs: tuple[Output, ...]
    held: object
    facts: dict[str, object] = field(default_factory=dict)

    def signature(self, name: str) -> Signature:
        """Returns the signature of this name, or raises `Refused`."""
        if name not in self.signatures:
            there = ", ".join(sorted(self.signatures))
            near = did_you_mean(name, self.signatures).strip()
            said = f'Serving signature name: "{name[:60]}" not found in signature def. Signatures here: {there}'
            raise Refused(400, said, near)
        return self.signatures[name]


class Versions:
    """The newest versions in a folder.

    Args:
        folder: Folder whose folders 1, 2, ... each hold a SavedModel.
        keep: Int, how many of the newest versions to serve.

    Raises:
        ValueError: If `folder` is a version itself, or if `keep` is not positive.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if (folder / "saved_model.pb").exists():
            raise ValueError(f"Expected the folder of all versions, {folder.parent}. Received a version: {folder}")
        self.folder, self.name, self._keep = folder, folder.resolve().name, check_count(keep, "keep")
        self._marks: dict[int, Mark] = {}
        self.available: dict[int, Version] = {}  # replaced as a whole, never changed
        self.failed: dict[int, str] = {}  # replaced as a whole, too

    def refresh(self) -> None:
        """Loads the versions that are new or were replaced, newest first, and drops those that are old or gone."""
        folders, marks = self._look()
        if self.available.keys() - marks.keys():  # gone for good, or just being replaced
            time.sleep(_SWAP_SECONDS)
            folders, marks = self._look()
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
            if number in self.available:  # a version whose replacement failed to load stays too
                wanted[number] = self.available[number]
        if wanted.keys() != self.available.keys():
            self.available = wanted

    def _look(self) -> tuple[dict[int, Path], dict[int, Mark]]:
        """The folders whose name is a number, and the marks of those that hold a SavedModel."""
        folders = {int(p.name): p for p in self.folder.glob("*") if p.name.isascii() and p.name.isdigit()}
        return folders, {number: mark for number, p in folders.items() if (mark := _mark(p))}

    def _load(self, folder: Path) -> Version | None:
        try:
            loaded = load(folder)
        except Exception as error:  # whatever is wrong with it, the other versions are still served
            message = str(error).partition("\n")[0]
            self.failed = self.failed | {int(folder.name): message}
            _log.warning("Version %s of %s cannot be served: %s", folder.name, self.name, message)
            return None
        _log.info("Version %s of %s is served", folder.name, self.name)
        pixels = {
            name: each for s in loaded.signatures.values() for name, each in s.pixels.items() if name in s.specs
        }
        for name, each in pixels.items():
            _log.info("Its input %r takes pixels from %s", name, each.words)
        return loaded

    def find(self, name: str, version: str | None = None) -> Version:
        """Returns the version with this number, or the newest one if `version` is None.

        Raises:
            Refused: If the model does not have this name, or there is no such version.
        """
        available = self.available
        if name == self.name and available:
            if version is None:
                return available[max(available)]
            if version in (named := {str(number): each for number, each in available.items()}):
                return named[version]
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        there = ", ".join(map(str, sorted(available))) or "none"
        raise Refused(404, f"Servable not found for request: {asked}. Versions of {self.name}: {there}")


def _mark(folder: Path) -> Mark | None:
    """A value that changes when an export is replaced and while it is copied; None if there is no export."""
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


def load(folder: Path) -> Version:
    """Loads a SavedModel and calls each signature once, so that the first request is not slow.

    Raises:
        ValueError: If the model has operations that reach outside it, or no signatures.
    """
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0]
    nodes = [*graph.graph_def.node, *(n for f in graph.graph_def.library.function for n in f.node_def)]
    if reaching := sorted({node.op for node in nodes} & _REACHING_OUT):
        raise ValueError(
            "The model has operations that use files, Python or the network, and the server does not run such a "
            f"model: {', '.join(reaching)}"
        )
    shown = {
        name: json_format.MessageToDict(
            definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, definition in graph.signature_def.items()
    }
    loaded = tf.saved_model.load(str(folder))
    signatures: dict[str, Signature] = {}
    info = read_info(folder)
    for name, function in loaded.signatures.items():
        specs = dict(sorted(function.structured_input_signature[1].items()))
        files = {each for each, spec in specs.items() if spec.dtype == tf.string and info.is_file(each)}
        _warm(function, specs, files)
        known: dict[str, Any] = {"least": info.least, "pixels": dict(info.pixels), "files": files}
        signatures[name] = Signature(specs, _runner(function), **known, name=name, names=tuple(loaded.signatures))
    if not signatures:
        raise ValueError("The model has no signatures")
    return Version(int(folder.name), signatures, shown, info.outputs, loaded, raw_info(folder))


def _runner(function: Callable[..., dict[str, tf.Tensor]]) -> Run:
    def run(inputs: Arrays) -> Arrays:
        outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def _warm(function: Callable[..., object], specs: dict[str, tf.TensorSpec], files: set[str]) -> None:
    black = tf.io.encode_png(np.zeros((32, 32, 1), "uint16"))  # all models take this file
    inputs = {}
    for name, spec in specs.items():
        shape = [1, *(32 if n is None else n for n in spec.shape[1:])]
        inputs[name] = tf.fill(shape, black) if name in files else tf.zeros(shape, spec.dtype)
    function(**inputs)
