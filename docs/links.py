"""Checks every internal link of the built site: its page exists, and so does its anchor. `make docs` runs it.

python docs/links.py docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors and the internal links of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := found.get(name))}
        link = found.get("src" if tag in ("img", "script") else "href")
        if link and not urlsplit(link).scheme and not urlsplit(link).netloc:
            self.links.append(link)


def dead_links(site: Path) -> list[str]:
    """Returns a line for each link that leads nowhere.

    A page of source code may link to the top of an API page: Sphinx takes all names of a module for names of the
    package of the first one, and so writes an anchor that a result does not have.
    """
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            name, anchor = unquote(urlsplit(link).path), unquote(urlsplit(link).fragment)
            target = (path.parent / name).resolve() if name else path
            if not target.is_file():
                dead.append(f"{path.relative_to(site.resolve())}: no such page: {link}")
            elif target in pages and anchor not in pages[target].anchors and "_modules" not in path.parts:
                dead.append(f"{path.relative_to(site.resolve())}: no such anchor: {link}")
    return dead


def main() -> None:
    dead = dead_links(Path(sys.argv[1]))
    print("\n".join(dead) or "All internal links lead somewhere.")
    sys.exit(bool(dead))


if __name__ == "__main__":
    main()
