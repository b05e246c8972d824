"""HTML pages that carry their pictures and styles within themselves, and need no network.

The templates in `templates/` are written in Jinja2's language. All values are escaped. A page extends `base.html`,
which holds the styles, and takes `title`; `parts.html` has macros for tables and pictures.
"""

from pathlib import Path

import jinja2
from markupsafe import Markup

from dropzoo.common.files import whole_file

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: object) -> Markup:
    """Fills in a template.

    Args:
        template: Str. The name of a file in `templates/`.
        **values: The values that the template names. Text is escaped, unless it is `Markup`.

    Returns:
        The HTML, a string that other templates do not escape again.

    Raises:
        jinja2.UndefinedError: If the template names a value that is missing.

    Example:
    >>> from dropzoo.pages import page
    >>> "<h1>a &lt; b</h1>" in page.render("base.html", title="a < b")
    True
    """
    return Markup(_TEMPLATES.get_template(template).render(**values))


def write(path: Path, template: str, **values: object) -> Path:
    """Fills in a template and writes it to a file, which is either whole or not there.

    Args:
        path: Path of the file.
        template: Str. The name of a file in `templates/`.
        **values: As in `render`.

    Returns:
        `path`.
    """
    text = render(template, **values)
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path
