"""HTML pages that carry their pictures and styles within themselves, and need no network."""

import html
import os
from collections.abc import Iterable
from pathlib import Path

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
 :root {{ color-scheme: light; }}
 body {{ font: 16px/1.55 system-ui, sans-serif; color: #222831; background: #fff; margin: 0 auto; max-width: 62rem;
   padding: 1.5rem 1rem 4rem; }}
 h1 {{ font-size: 1.7rem; margin-bottom: .2rem; }} h2 {{ margin-top: 2.6rem; border-bottom: 1px solid #dde1e6; }}
 h3 {{ font-size: 1.02rem; margin: 1.6rem 0 .4rem; }}
 .wide {{ overflow-x: auto; }} .wide img {{ min-width: 34rem; }}
 img {{ width: 100%; height: auto; display: block; }}
 table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
 th, td {{ padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #e6e9ed; white-space: nowrap; }}
 th {{ white-space: normal; vertical-align: bottom; }}
 th:first-child, td:first-child {{ text-align: left; }}
 pre {{ background: #f4f6f8; padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; font-size: .85rem; }}
 p.note {{ color: #5a6270; }}
 details {{ margin: .4rem 0; }} summary {{ cursor: pointer; }}
 .wrap {{ white-space: normal; min-width: 9.5rem; text-align: left !important; }}
 pre.wrap {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write(path: Path, title: str, body: str) -> Path:
    """Writes a page under a temporary name first."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(_PAGE.format(title=html.escape(title), body=body))
    os.replace(temporary, path)
    return path


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], wrap: int | None = None) -> str:
    """A table of text, escaped; it scrolls by itself where it is wider than the page.

    Args:
        heads: of the columns.
        rows: of cells.
        wrap: the column whose text may take several lines.
    """
    heads, lines = list(heads), []
    for tag, cells in (("th", heads), *(("td", row) for row in rows)):
        kinds = (f'{tag} class="wrap"' if i == wrap else tag for i in range(len(heads)))
        line = (f"<{kind}>{html.escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
        lines.append(f"<tr>{''.join(line)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
