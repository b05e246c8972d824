"""The models of a server: one folder of versions, or a folder of such folders."""

import logging
import re
from pathlib import Path

from dropzoo.common.checks import did_you_mean
from dropzoo.serving.server.limits import Refused
from dropzoo.serving.server.versions import Version, Versions

_log = logging.getLogger("dropzoo.serving")


class Models:
    """The models of a server by name, each with its versions.

    Args:
        folder: Folder of a model's versions, or a folder of such folders, whose names are those of the models.
        keep: Int, how many of the newest versions of each model to serve.

    Raises:
        ValueError: If `folder` is a version itself or has only such folders, or if `keep` is not positive.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._told: set[Path] = set()
        inside = _folders(folder)
        self.single = _is_version(folder) or _has_versions(folder) or not any(map(_has_versions, inside))
        if self.single and not _is_version(folder) and (lone := next(filter(_is_version, inside), None)):
            Versions(lone, keep)  # raises
        self.by_name: dict[str, Versions] = {}  # replaced as a whole, never changed
        if self.single:
            versions = Versions(folder, keep)
            self.by_name = {versions.name: versions}

    @property
    def first(self) -> Versions:
        """The only model, or the first by name."""
        return self.by_name[min(self.by_name)]

    def refresh(self) -> None:
        """Looks for new models and new versions, and drops those that are gone."""
        if not self.single:
            found = {each.name: each for each in _folders(self._folder) if self._is_model(each)}
            for name in sorted(found.keys() - self.by_name.keys()):
                if not re.fullmatch(r"[\w.+-]+", name, re.ASCII):
                    continue
                _log.info("Model %s is new", name)
                self.by_name = self.by_name | {name: Versions(found[name], self._keep)}
            if gone := self.by_name.keys() - found.keys():
                self.by_name = {name: each for name, each in self.by_name.items() if name not in gone}
        for each in self.by_name.values():
            each.refresh()

    def _is_model(self, folder: Path) -> bool:
        """Whether a folder is one of versions. The log says once that a folder is a version itself."""
        if _is_version(folder) and folder not in self._told:
            self._told.add(folder)
            _log.warning("%s is not a model, but a version of one: move it to %s", folder, folder / "1")
        return _has_versions(folder) and not _is_version(folder)

    def loaded(self) -> list[Version]:
        """Returns all versions that are served."""
        return [version for each in self.by_name.values() for version in each.available.values()]

    def of(self, name: str) -> Versions:
        """Returns the model of this name, or raises `Refused`."""
        if name in self.by_name:
            return self.by_name[name]
        if name.endswith((":predict", ":predict_mc")):
            raise Refused(405, f"Predictions need a POST request, not GET: {name[:80]}")
        if self.single:
            return self.first  # whose error says which versions there are
        there = ", ".join(sorted(self.by_name)) or "none"
        near = did_you_mean(name, self.by_name)
        raise Refused(
            404, f"Servable not found for request: Latest({name[:80]}). Models here: {there}.{near}".rstrip(".")
        )


def _folders(folder: Path) -> list[Path]:
    return [each for each in sorted(folder.glob("*")) if each.is_dir() and not each.name.isdigit()]


def _has_versions(folder: Path) -> bool:
    """Whether a folder is one of versions."""
    return any(
        each.parent.name.isascii() and each.parent.name.isdigit() for each in folder.glob("*/saved_model.pb")
    )


def _is_version(folder: Path) -> bool:
    """Whether a folder is a version itself."""
    return (folder / "saved_model.pb").exists()
