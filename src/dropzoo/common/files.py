"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives the block a temporary path to write to, then renames the file to its real name.

    If the block raises, the temporary file is removed and an existing file stays unchanged. The temporary name
    keeps the suffix, since many writers choose a format by it. Missing parent folders are made.

    Args:
        path: Path of the file to write.

    Yields:
        The temporary path, in the same folder.

    Example:
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "figures.json"
    >>> with whole_file(path) as unfinished:
    ...     _ = unfinished.write_text("{}")
    >>> path.read_text(), [file.name for file in path.parent.iterdir()]
    ('{}', ['figures.json'])
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # the disk may be gone; the block's own error says so
            unfinished.unlink(missing_ok=True)
