"""Files that are written whole or not at all, and files with one writer at a time."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# Windows refuses to read locked bytes, so the lock is on a single byte far beyond the end of the file.
_LOCKED_BYTE = 2**30
_TRIES = 20


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives the block a temporary path to write to, then renames the file to its real name.

    If the block raises, the temporary file is removed and an existing file stays unchanged. The temporary name
    keeps the suffix, since many writers choose their format by it. Missing parent folders are created.

    Args:
        path: Path of the file to write.

    Yields:
        The temporary path, in the same folder.

    Raises:
        ValueError: If the path is that of a folder.

    Example:
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "figures.json"
    >>> with whole_file(path) as unfinished:
    ...     _ = unfinished.write_text("{}")
    >>> path.read_text(), [file.name for file in path.parent.iterdir()]
    ('{}', ['figures.json'])
    """
    if path.is_dir():
        raise ValueError(f"Expected the path of a file to write. Received the folder {path}. Add a file name")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    try:
        yield unfinished
        _replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # the disk may be gone; the block's own error says so
            unfinished.unlink(missing_ok=True)


class RealPaths:
    """Finds the real paths of many files. It resolves each folder once, which is much faster than `Path.resolve`.

    Do not keep it: it does not notice when a folder becomes a link.

    Example:
    >>> from pathlib import Path
    >>> real_path = RealPaths()
    >>> real_path(Path("a.png")) == Path("a.png").resolve()
    True
    """

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}

    def __call__(self, path: Path) -> Path:
        """Returns the real path of a file.

        Args:
            path: Path of a file, which need not exist.
        """
        if path.name in ("", "..") or os.path.islink(path):
            return path.resolve()
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = folder.resolve()
        return self._folders[folder] / path.name


def _replace(new: Path, path: Path) -> None:
    """Renames a file. On Windows it waits up to a second for other programs that have the old file open."""
    for _ in range(_TRIES if sys.platform == "win32" else 0):
        with contextlib.suppress(PermissionError):
            os.replace(new, path)
            return
        time.sleep(1 / _TRIES)
    os.replace(new, path)


def lock(file: IO[bytes]) -> None:
    """Locks a file for this process until the file is closed or the process ends, even by a crash.

    Other processes can still read the file, and can write to it if they do not ask for the lock.

    Args:
        file: An open file that can be written.

    Raises:
        BlockingIOError: If another process, or another open file of this one, has the lock.
    """
    if sys.platform == "win32":
        import msvcrt

        position = file.tell()
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from None
        finally:
            file.seek(position)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
