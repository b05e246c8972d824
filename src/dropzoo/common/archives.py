"""Texts in a zip archive, such as a `.keras` file."""

import shutil
import zipfile
from pathlib import Path

from dropzoo.common.files import whole_file


def read_member(path: Path, name: str) -> str | None:
    """Returns the text of a member of an archive; None if there is no such member, or no archive.

    Args:
        path: Path of the archive.
        name: Str, the name of the member.
    """
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.read(name).decode() if name in archive.namelist() else None


def write_member(path: Path, name: str, text: str) -> None:
    """Puts a text into an archive, in place of the member of this name; the archive is whole before and after.

    Args:
        path: Path of the archive.
        name: Str, the name of the member.
        text: The text.

    Raises:
        ValueError: If there is no such archive.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"Expected an existing .keras file (a zip archive). Received: {path}")
    with whole_file(path) as unfinished, zipfile.ZipFile(path) as old, zipfile.ZipFile(unfinished, "w") as new:
        for member in old.infolist():
            if member.filename != name:
                with old.open(member) as source, new.open(member, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target)
        new.writestr(name, text)
