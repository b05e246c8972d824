"""Annotations in the format of COCO: one JSON file with polygons for all images."""

import dataclasses
import json
import re
from pathlib import Path

from dropzoo.training.data.files.listing import Listing
from dropzoo.training.data.files.table import Polygons, Sample, Table, some, split_of


def find_coco(root: Path) -> dict[str, Path]:
    """Returns the files of COCO annotations in a folder, or in its `annotations/`, by their splits.

    Raises:
        ValueError: If there are several files, and their names do not say of which split they are.
    """
    places = [*sorted(root.glob("*.json")), *sorted(root.glob("annotations/*.json"))]
    found = [path for path in places if _is_coco(path)]
    if len(found) < 2:
        return {"": found[0]} if found else {}
    words = {path: re.split("[^a-z]+", path.stem.lower()) for path in found}
    splits = {next((split_of(word) for word in words[path] if split_of(word)), ""): path for path in found}
    if len(splits) < len(found) or "" in splits:
        raise ValueError(
            f"Expected one file of annotations for each split in {root}. Received: {some(list(map(str, found)))}"
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
    return dataclasses.replace(
        tables[0], samples=samples, notes=[note for table in tables for note in table.notes]
    )


def _read(path: Path, root: Path, split: str) -> Table:
    """Returns the table of a COCO file: class 0 is the background, and the categories follow in the order of ids.

    Raises:
        ValueError: If images are missing, or annotations are no polygons.
    """
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    categories = sorted(content["categories"], key=lambda each: each["id"])
    classes = {each["id"]: number + 1 for number, each in enumerate(categories)}
    by_name: dict[str, list[Path]] = {}
    for file in Listing().images(root):
        by_name.setdefault(file.name, []).append(file)
    shapes: dict[int, list[tuple[int, tuple[float, ...]]]] = {}
    encoded = 0
    for each in content["annotations"]:
        if not isinstance(outlines := each.get("segmentation"), list) or not outlines:
            encoded += 1
            continue
        if each["category_id"] not in classes:
            raise ValueError(
                f"Annotation {each.get('id')} in {path} has the category {each['category_id']}, which is "
                f"not listed"
            )
        for corners in outlines:
            shapes.setdefault(each["image_id"], []).append(
                (classes[each["category_id"]], tuple(map(float, corners)))
            )
    if encoded:
        raise ValueError(
            f"{encoded:,} annotations in {path} are not polygons but run-length codes, or only boxes. Save "
            f"the masks as "
            "PNG files of class ids instead"
        )
    samples, missing = [], []
    for image in sorted(content["images"], key=lambda each: each["file_name"]):
        found = _find(image["file_name"], (path.parent, root), by_name, split)
        if found is None:
            missing.append(image["file_name"])
            continue
        mask = Polygons((image["height"], image["width"]), tuple(shapes.get(image["id"], ())))
        samples.append(Sample(found, mask=mask, split=split))
    if missing:
        raise ValueError(
            f"{len(missing):,} images that {path} lists do not exist, or several files have the same name: "
            f"{some(missing)}"
        )
    names = ("background", *(str(each["name"]) for each in categories))
    return Table(root, samples, names, notes=[f"Masks are drawn from the polygons of {path}"])


def _find(name: str, places: tuple[Path, ...], by_name: dict[str, list[Path]], split: str) -> Path | None:
    """Returns the file that a name means from one of the places, or the only file of that name, or None."""
    name = name.replace("\\", "/")
    for place in places:
        if (path := place / name).is_file():
            return path
    found = by_name.get(Path(name).name, [])
    # The folder that is named counts first, then that of the split, such as train2017.
    ends = [path for path in found if path.as_posix().endswith(f"/{name}")]
    of_split = [path for path in found if split and split in map(split_of, _words(path.parent, places[-1]))]
    return next((paths[0] for paths in (found, ends, of_split) if len(paths) == 1), None)


def _words(folder: Path, root: Path) -> list[str]:
    return re.split("[^a-z]+", str(folder.relative_to(root)).lower())
