"""Reads the `info.json` of an export, which describes its inputs and outputs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from dropzoo.common.pixels import Pixels
from dropzoo.serving.montecarlo.outputs import KINDS
from dropzoo.serving.server.counts import Count, read_counts


@dataclass(frozen=True)
class Output:
    """The description of one output of a model.

    Attributes:
        name: Its name, with which the names in an answer begin; empty for the only output of a model.
        kind: Its output kind, one of `KINDS`.
        class_names: Names of the classes, labels or values; None if the export does not give them.
        promises: The promises of the calibration, a sentence each, by the names of the guarantees.
        condition: The sentence that says when the promises hold.
        counts: The intervals of counts of objects, by the name of the class.
    """

    name: str = ""
    kind: str = KINDS[0]
    class_names: tuple[str, ...] | None = None
    promises: Mapping[str, str] = field(default_factory=dict)
    condition: str = ""
    counts: Mapping[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class Info:
    """The content of an `info.json`, or defaults where it is missing.

    Attributes:
        outputs: The description of each output.
        least: Int, the pixels of an image after the model has resized it; 0 if the size is not fixed.
        pixels: The images that the model takes, by the name of the input and by that of its files.
        described: Whether `info.json` describes the inputs.
    """

    outputs: tuple[Output, ...] = (Output(),)
    least: int = 0
    pixels: Mapping[str, Pixels] = field(default_factory=dict)
    described: bool = False

    def is_file(self, name: str) -> bool:
        """Returns whether an input of strings is image files. Without a description, all such inputs are."""
        return name in self.pixels or not self.described


def raw_info(folder: Path) -> dict[str, Any]:
    """Returns the content of `assets.extra/info.json` in the folder of an export; empty if it cannot be read."""
    try:
        return dict(orjson.loads((folder / "assets.extra" / "info.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def read_info(folder: Path) -> Info:
    """Returns the descriptions in `assets.extra/info.json` in the folder of an export."""
    info = raw_info(folder)
    if not info:
        return Info()
    outputs, size = info.get("outputs"), info.get("image_size")
    if isinstance(outputs, list) and len(outputs) > 1:
        found = tuple(_output(each, str(each["name"])) for each in outputs)
    else:
        found = (replace(_output(info, ""), counts=read_counts(folder)),)
    known = size if isinstance(size, list) and all(isinstance(n, int) for n in size) else [0]
    inputs = info.get("inputs")
    pixels: dict[str, Pixels] = {}
    for each in inputs if isinstance(inputs, list) else []:
        if each.get("pixels"):
            pixels |= {name: Pixels(**each["pixels"]) for name in (each["name"], each["file_name"]) if name}
    return Info(found, math.prod(known), pixels, isinstance(inputs, list))


def _output(said: dict[str, Any], name: str) -> Output:
    names, kind = said.get("class_names"), said.get("task")
    class_names = tuple(map(str, names)) if isinstance(names, list) else None
    calibration = said.get("calibration")
    known = calibration if isinstance(calibration, dict) else {}
    promises = {key: str(each["words"]) for key, each in known.get("guarantees", {}).items()}
    condition = str(known.get("condition", "")) if promises else ""
    return Output(name, kind if kind in KINDS else KINDS[0], class_names, promises, condition)
