"""Layouts of images and tables: one CSV, or one for each split."""

from collections.abc import Sequence
from pathlib import Path

from dropzoo.training.data.files.listing import Listing, folders_in, has_images
from dropzoo.training.data.files.merge import merge_splits
from dropzoo.training.data.files.names import FileNames
from dropzoo.training.data.files.roles import split_in_name
from dropzoo.training.data.files.rows import finder_in, lists_images, lists_runs, read_rows
from dropzoo.training.data.files.table import Reading, Table, some


def has_runs(root: Path) -> bool:
    """Returns whether a folder holds a table of run lengths that is not an example of a submission."""
    return any(not is_form(path) and _has_runs(path) for path in _tables_in(root))


def _has_runs(path: Path) -> bool:
    try:
        return lists_runs(path)
    except ValueError:
        return False


def _tables_in(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv"))


def is_form(path: Path) -> bool:
    """Returns whether a table is an example of a submission, whose labels mean nothing."""
    return "submission" in path.stem.lower()


def listed_in_csv(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of the CSV files in a folder; None without any, or if class folders give the labels."""
    files = _tables_in(root)
    finder = finder_in(root, root)
    found = [path for path in files if lists_images(path, finder)]
    _refuse_lost([path for path in files if path not in found and not is_form(path)], finder)
    files = [path for path in found if not is_form(path)]
    examples = [path for path in found if is_form(path)]
    files = [path for path in files if lists_runs(path)] or files  # masks count more than facts about images
    if not files:
        return None
    folders = [each for each in folders_in(root) if has_images(each)]
    are_classes = len(folders) > 1 and not all(split_in_name(each.name) for each in folders)
    if are_classes and len(files) > 1:
        return None
    table = _of_files(root, files, reading, finder)
    if are_classes and table.task == "classification" and _follows(table, folders):
        return None
    what = "Masks" if table.task == "segmentation" else "Labels"
    table.notes.append(f"{what} come from {' and '.join(map(str, files))}")
    if examples:
        table.notes.append(
            f"Tables with the word submission in their names are not read: {some([p.name for p in examples])}"
        )
    return table


def _refuse_lost(files: Sequence[Path], finder: FileNames) -> None:
    """Raises a ValueError for a table of run lengths whose images have other names, if there are images."""
    for path in files:
        if _has_runs(path) and finder.files:
            raise ValueError(
                f"{path} holds masks as run lengths, but the first images that it names do not exist. Write the "
                "path of each image into the column of file names, or move the table away if it is not needed"
            )


def _of_files(root: Path, files: Sequence[Path], reading: Reading, finder: FileNames) -> Table:
    """Returns the table of one CSV, or of one for each split: train.csv and test.csv."""
    tables = {path: read_rows(path, root, reading, finder) for path in files}
    if len(files) == 1:
        return tables[files[0]]
    splits = [split_in_name(path.stem) for path in files]
    if "" in splits or len(set(splits)) < len(splits):
        raise ValueError(
            f"Several tables list images: {some([str(path) for path in files])}. Pass the right one as "
            "`split_file` (--split-file)"
        )
    return merge_splits(root, dict(zip(splits, tables.values(), strict=True)))


def _follows(table: Table, folders: Sequence[Path]) -> bool:
    """Returns whether the labels of a table are those of class folders: by name, or one for each folder."""
    if set(table.class_names) & {folder.name for folder in folders}:
        return True
    labels = {
        folder: {sample.label for sample in table.samples if sample.image.is_relative_to(folder)}
        for folder in folders
    }
    return all(len(found) < 2 for found in labels.values())
