"""Finds the files that tables and lists name, as people write them: with or without folders and endings."""

import functools
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

_LONGEST = 3  # the folders and the name by which files are first looked for


def normal(text: str) -> str:
    """Returns text with slashes, and each letter as one character: file systems differ in "e" with an accent."""
    return unicodedata.normalize("NFC", text.replace("\\", "/"))


class FileNames:
    """Finds files by names: from a folder, or else by the end of their paths, with or without an ending.

    A name whose letters differ only in their case from those of a single file means this file, unless another file
    has exactly this name.

    If one of several names that are looked up together is found with its folder, the others must be too: a missing
    file is not replaced by a file of the same name in another folder.

    Args:
        files: Function that returns all files, which is called if a name is not a path from one of the places.
        places: The folders from which names may be paths.
    """

    def __init__(self, files: Callable[[], Iterable[Path]], places: Sequence[Path] = ()) -> None:
        self._list, self._places = files, places
        self._by_end: dict[Callable[[str], str], dict[str, list[Path]]] = {}

    @functools.cached_property
    def files(self) -> list[Path]:
        """All files."""
        return list(self._list())

    def find_all(
        self, names: Sequence[str | Sequence[str]], prefer: Callable[[Path], bool] | None = None
    ) -> list[Path | None]:
        """Returns the only file that each name means, or None.

        Args:
            names: The names. If a name has several ways to write it, the first known one counts.
            prefer: Function that decides among several files of the same name.
        """
        found = [self._candidates([name] if isinstance(name, str) else name) for name in names]
        is_strict = any(by_folder for _, by_folder, has_folder in found if has_folder)
        return [
            None if is_strict and has_folder and not by_folder else _only(paths, prefer)
            for paths, by_folder, has_folder in found
        ]

    def _candidates(self, ways: Sequence[str]) -> tuple[list[Path], bool, bool]:
        """Returns the files of a name, whether its folder was found too, and whether it names a folder."""
        found = self._candidates_by(ways, str)
        return found if found[0] or not any(ways) else self._candidates_by(ways, str.casefold)

    def _candidates_by(self, ways: Sequence[str], fold: Callable[[str], str]) -> tuple[list[Path], bool, bool]:
        best: tuple[list[Path], bool, bool] = ([], False, False)
        for name in filter(None, ways):
            has_folder = "/" in normal(name).strip("/").removeprefix("./")
            for place in self._places:
                if (path := place / name).is_file():
                    return [path], True, has_folder
            parts = normal(name).removeprefix("./").strip("/").split("/")
            for n in range(len(parts)):
                if paths := self._ends(fold).get(fold("/".join(parts[n:]))):
                    paths = _narrowed(paths, parts)
                    by_folder = n < len(parts) - 1 or not has_folder
                    if by_folder:
                        return paths, True, has_folder
                    best = best if best[0] else (paths, False, has_folder)
        return best

    def _ends(self, fold: Callable[[str], str]) -> dict[str, list[Path]]:
        """Returns the files by each end of their paths, with and without the ending, as a function writes them."""
        if fold not in self._by_end:
            ends = self._by_end[fold] = {}
            for path in self.files:
                parts, suffix = normal(str(path)).split("/"), path.suffix
                for n in range(1, min(_LONGEST, len(parts)) + 1):
                    end = "/".join(parts[-n:])
                    for key in (end, end.removesuffix(suffix)) if suffix else (end,):
                        ends.setdefault(fold(key), []).append(path)
        return self._by_end[fold]


def _narrowed(paths: list[Path], parts: list[str]) -> list[Path]:
    """Returns the files whose paths share most with a name."""

    def shared(path: Path) -> int:
        own = [normal(part) for part in path.parts[:-1]]
        return len(os.path.commonprefix([own[::-1], parts[-2::-1]]))

    most = max(map(shared, paths)) if len(paths) > 1 else 0
    return [path for path in paths if shared(path) == most] if len(paths) > 1 else paths


def _only(paths: list[Path], prefer: Callable[[Path], bool] | None) -> Path | None:
    if len(paths) > 1 and prefer is not None:
        paths = [path for path in paths if prefer(path)]
    return paths[0] if len(paths) == 1 else None
