"""How many packages dropzoo needs, and how much room they take in the environment that runs this script.

    python benchmarks/install_size.py

It follows the requirements of dropzoo without its extras, and adds up the files of each package. docs/install.md
quotes the figures. Byte code is not counted: pip may or may not compile it.
"""

import importlib.metadata
import re
from pathlib import Path

from packaging.requirements import Requirement

LARGEST = 6


def needed(name: str, found: dict[str, importlib.metadata.Distribution]) -> None:
    """Adds a package and all that it needs to `found`, by their names."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found:
        return
    found[key] = importlib.metadata.distribution(name)
    for line in found[key].requires or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        needed(wanted.name, found)
        for extra in wanted.extras:
            for more in map(Requirement, importlib.metadata.requires(wanted.name) or ()):
                if more.marker is not None and more.marker.evaluate({"extra": extra}):
                    needed(more.name, found)


def size(package: importlib.metadata.Distribution) -> int:
    """The bytes of the files of a package."""
    paths = [Path(str(package.locate_file(file))) for file in package.files or () if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    found: dict[str, importlib.metadata.Distribution] = {}
    needed("dropzoo", found)
    del found["dropzoo"]
    sizes = {name: size(package) for name, package in found.items()}
    print(f"{len(sizes)} packages, {sum(sizes.values()) / 1e9:.1f} GB")
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST]:
        print(f"{name:30} {sizes[name] / 1e6:7.0f} MB")


if __name__ == "__main__":
    main()
