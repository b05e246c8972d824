"""The files that commands wrote, and that journals in their folders or above claim: not images of the user."""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path


def claimed_in(journal: Path) -> set[str]:
    """Returns the absolute paths of the files that a journal claims, even if parts of it are damaged.

    Args:
        journal: Path of the journal. A file of another kind claims nothing.
    """
    claimed: set[str] = set()
    try:
        lines = journal.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    except OSError:
        return claimed
    for line in lines:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and "key" not in entry:
                claimed |= {os.path.abspath(journal.parent / file) for file in entry.get("files", ())}
    return claimed


def without_claimed(files: Iterable[Path]) -> list[Path]:
    """Returns the files that no journal in their folders or above claims."""
    kept = list(files)
    folders = {each.parent for each in kept}
    above = {parent for folder in folders for parent in Path(os.path.abspath(folder), "file").parents}
    claimed = {file for folder in above for journal in folder.glob(".*.journal") for file in claimed_in(journal)}
    return [each for each in kept if os.path.abspath(each) not in claimed] if claimed else kept
