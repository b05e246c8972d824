"""Pages from templates: what is escaped, what is missing, and what the page of an evaluation holds."""

import jinja2
import pytest

from dropzoo.pages import page

TABLE = '{% from "parts.html" import table %}{{ table(heads, rows, wrap=1) }}'


def test_text_is_escaped_in_pages_and_tables(tmp_path):
    written = page.write(
        tmp_path / "new" / "page.html",
        "evaluation.html",
        title="<b> & co",
        heads=["", "a < b"],
        rows=[["<script>", "0.5"]],
        tables={"more <i>": [["x", "-"]]},
        details=[("each <i>", ["class"], [["<i>cell"]])],
        pictures={"a picture": "data:image/png;base64,AAAA"},
    )
    text = written.read_text(encoding="utf-8")
    assert [p.name for p in written.parent.iterdir()] == ["page.html"]
    assert "<title>&lt;b&gt; &amp; co</title>" in text and "<th>a &lt; b</th>" in text
    assert "<td>&lt;script&gt;</td><td>0.5</td>" in text and "<h2>more &lt;i&gt;</h2>" in text
    assert "<h2>each &lt;i&gt;</h2>" in text and "<td>&lt;i&gt;cell</td>" in text
    assert '<img alt="a picture" src="data:image/png;base64,AAAA">' in text
    assert not any(tag in text for tag in ("<script>", "<b>", "<i>"))


def test_a_column_may_wrap():
    template = page._TEMPLATES.from_string(TABLE)
    shown = template.render(heads=["a", "b"], rows=[["1", "long"]])
    assert '<th>a</th><th class="wrap">b</th>' in shown and '<td>1</td><td class="wrap">long</td>' in shown


def test_a_missing_value_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="title"):
        page.write(tmp_path / "page.html", "base.html")
    assert not list(tmp_path.iterdir())
