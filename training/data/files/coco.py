"""Annotations in the format of COCO: one JSON file with polygons for all images."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from dropzoo.common.words import count_of
from dropzoo.training.data.files.listing import Listing
from dropzoo.training.data.files.names import FileNames
from dropzoo.training.data.files.table import Drawn, Runs, Sample, Shape, Table, some, split_of


def find_coco(root: Path) -> dict[str, Path]:
    """Returns the files of COCO annotations in a folder, or in its `annotations/`, by their splits.

    Raises:
        ValueError: If there are several files, and their names do not say to which split they belong.
    """
    places = [*sorted(root.glob("*.json")), *sorted(root.glob("annotations/*.json"))]
    found = [path for path in places if _is_coco(path)]
    # COCO has files of other kinds for the same images: person_keypoints_train2017.json.
    found = [path for path in found if path.stem.startswith("instances")] or found
    if len(found) < 2:
        return {"": found[0]} if found else {}
    words = {path: re.split("[^a-z]+", path.stem.lower()) for path in found}
    splits = {next((split_of(word) for word in words[path] if split_of(word)), ""): path for path in found}
    if len(splits) < len(found) or "" in splits:
        raise ValueError(
            f"Expected one file of annotations for each split in {root}, named after it, such as "
            f"instances_train.json. Received: {some(list(map(str, found)))}"
        )
    return splits


def _is_coco(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError):
        return False
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def read_coco(files: dict[str, Path], root: Path) -> Table:
    """Returns the table of the COCO files of splits."""
    tables = [_read(path, root, split) for split, path in files.items()]
    if len({table.class_names for table in tables}) > 1:
        raise ValueError(
            f"The files of the splits must have the same categories. Received: "
            f"{some(list(map(str, files.values())))}"
        )
    samples = [sample for table in tables for sample in table.samples]
    named = {os.path.realpath(sample.image) for sample in samples}
    unnamed = [file.name for file in Listing().images(root) if os.path.realpath(file) not in named]
    left = count_of(len(unnamed), "image is", "images are")
    doubts = [f"{left} not in any file of annotations and will be left out: {some(unnamed)}"]
    return dataclasses.replace(
        tables[0],
        samples=samples,
        notes=[note for table in tables for note in table.notes],
        doubts=doubts if unnamed else [],
    )


def _read(path: Path, root: Path, split: str) -> Table:
    """Returns the table of a COCO file: class 0 is the background, and the categories follow in the order of ids.

    Raises:
        ValueError: If images are missing, or annotations have no outline or a category that is not listed.
    """
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    categories = sorted(content["categories"], key=lambda each: each["id"])
    classes = {each["id"]: number + 1 for number, each in enumerate(categories)}
    shapes: dict[int, list[tuple[int, Shape]]] = {}
    boxes = 0
    for each in content["annotations"]:
        if not (outlines := each.get("segmentation")):
            boxes += 1
            continue
        if each["category_id"] not in classes:
            raise ValueError(
                f"Annotation {each.get('id')} in {path} has the category {each['category_id']}, which is "
                f"not in the list `categories`. Add it there, or remove the annotation"
            )
        shapes.setdefault(each["image_id"], []).append((classes[each["category_id"]], _shape(outlines)))
    if boxes:
        have = count_of(boxes, f"annotation in {path} has", f"annotations in {path} have")
        raise ValueError(
            f"{have} no outline, only a box or nothing. Remove such annotations, or save masks as PNG files of "
            "class ids"
        )
    images = sorted(content["images"], key=lambda each: each["file_name"])
    files = Listing().images(root)

    def is_of_split(file: Path) -> bool:
        return bool(split) and split in map(split_of, _words(file.parent, root))

    # The folder that is named counts first, then that of the split, such as train2017.
    places = FileNames(lambda: files, [path.parent, root]).find_all(
        [image["file_name"] for image in images], is_of_split
    )
    samples, missing = [], []
    for image, found in zip(images, places, strict=True):
        if found is None:
            missing.append(image["file_name"])
            continue
        mask = Drawn((image["height"], image["width"]), tuple(shapes.get(image["id"], ())))
        _check_runs(mask, found)
        samples.append(Sample(found, mask=mask, split=split))
    if missing:
        raise ValueError(
            f"{path} lists {count_of(len(missing), 'image')} for which there is no file, or more than "
            f"one: {some(missing)}. Write the path of each image into `file_name`, or remove the image "
            "from the list"
        )
    names = ("background", *(str(each["name"]) for each in categories))
    return Table(root, samples, names, notes=[f"Masks are drawn from the outlines of {path}"])


def _shape(outlines: Any) -> Shape:
    """Returns the polygons of an annotation, or its run lengths."""
    if isinstance(outlines, list):
        return tuple(tuple(map(float, corners)) for corners in outlines)
    counts = outlines["counts"]
    return Runs(tuple(counts if isinstance(counts, list) else unpacked(counts)))


def _check_runs(mask: Drawn, image: Path) -> None:
    height, width = mask.size
    for _, shape in mask.shapes:
        if isinstance(shape, Runs) and sum(shape.counts) != height * width:
            raise ValueError(
                f"The run lengths of each object in {image} must cover its {height}x{width} pixels. Received: "
                f"{sum(shape.counts):,} pixels. Correct or remove the annotation"
            )


def unpacked(text: str) -> list[int]:
    """Returns the run lengths in COCO's text: 5 bits a character, lowest first; differences from the fourth on."""
    counts: list[int] = []
    value = shift = 0
    for sign in text:
        bits = ord(sign) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # a negative difference
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts


def _words(folder: Path, root: Path) -> list[str]:
    return re.split("[^a-z]+", str(folder.relative_to(root)).lower())
