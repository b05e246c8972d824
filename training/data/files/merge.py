"""One table of the tables of several splits."""

import dataclasses
from pathlib import Path

from dropzoo.training.data.files.table import Drawn, Sample, Table, some


def merge_splits(root: Path, tables: dict[str, Table]) -> Table:
    """Returns one table of the tables of the splits; each class has one number in all of them."""
    names = _names_of_all(list(tables.values()))
    samples: list[Sample] = []
    merged = Table(root, samples, names)
    for split in sorted(tables, key=("train", "validation", "test").index):
        table = tables[split]
        for sample in table.samples:
            label = names.index(table.class_names[sample.label]) if sample.label >= 0 else -1
            samples.append(dataclasses.replace(sample, split=split, label=label))
        merged.notes += table.notes
        merged.doubts += table.doubts
    for split, table in tables.items():
        missing = [name for name in names if name not in table.class_names]
        if missing and table.class_names and split == "train":
            raise ValueError(
                f"Each class needs training images. Received: none of {some(missing)} in {table.root}. Add "
                "some, or leave the class out of the other splits too"
            )
        if missing and table.class_names:
            merged.doubts.append(f"No image of {some(missing)} in {table.root}")
    return merged


def _names_of_all(tables: list[Table]) -> tuple[str, ...]:
    """Returns the names of the classes of all tables, in the order of the numbers that drawn masks hold."""
    given = {table.class_names for table in tables if table.class_names}
    if any(isinstance(sample.mask, Drawn) for table in tables for sample in table.samples):
        if len(given) > 1:
            shown = "; ".join(f"{some(each.class_names)} in {each.root}" for each in tables if each.class_names)
            raise ValueError(f"The files of the splits must have the same categories. Received: {shown}")
        return given.pop()
    return tuple(sorted({name for names in given for name in names}))
