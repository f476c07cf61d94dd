"""The shell of all pages, markup and blocks: what is shown is escaped, what is written stands alone."""

import doctest
import importlib
import re

import pytest
from html_page import Page

from twinreel.pages.markup import Html, escape, join, tag
from twinreel.pages.page import details, paragraph, section, write_page
from twinreel.pages.tables import Row, Tile, count_lists, protocol_list, table, tiles
from twinreel.pages.thumbnails import clip_figure

ODD = """<b onclick='x()'>"&amp;</b>"""  # as text: angle brackets, both quotes, an entity


def test_doctests_pass():
    result = doctest.testmod(importlib.import_module("twinreel.pages.markup"))
    assert (result.attempted >= 3, result.failed) == (True, 0)


BLOCKS = {
    "section": lambda: section(ODD, paragraph(ODD), details(ODD, ODD)),
    "table": lambda: table([ODD], rows=[Row(name=ODD, cells=[ODD])], words=True),
    "tiles": lambda: tiles([Tile(name=ODD, value=ODD, unit=ODD, note=ODD)]),
    "protocol": lambda: protocol_list({ODD: ODD, "more": [ODD, ODD]}),
    "counts": lambda: count_lists({ODD: {ODD: 3}}),
    "clip": lambda: clip_figure(ODD, note=ODD, caption=ODD, alt=ODD),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_escapes_what_it_is_given(name):
    block = BLOCKS[name]()
    assert "<b " not in block and "onclick='" not in block
    assert " ".join(ODD.split()) in Page(block).text
    assert "&amp;lt;" not in block  # once, not twice


def test_markup_is_inserted_as_it_is_and_what_is_made_of_it_is_text():
    bold = tag("b", "1 < 2")
    assert tag("p", bold) == "<p><b>1 &lt; 2</b></p>"
    assert escape(f"{bold}") == "&lt;b&gt;1 &amp;lt; 2&lt;/b&gt;"
    assert isinstance(join([bold, 3]), Html)
    assert tag("img", src='a"b', alt="") == '<img src="a&quot;b" alt="">'


def test_a_page_is_whole_and_needs_nothing_else(tmp_path):
    sections = [section("One", paragraph("first")), Html(), section("Two", paragraph("second"))]
    path = write_page(
        tmp_path / "index.html",
        kind="test of <pages>",
        title="$title ${style} & more",
        subtitle="日本語",
        sections=sections,
        footer="end",
        variables={"shape": "1.5"},
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert list(tmp_path.iterdir()) == [path]
    assert page.tags.count("section") == 2 and page.links == []
    assert "$title ${style} & more" in page.text and "日本語" in page.text and "test of <pages>" in page.text
    assert not re.search(r"https?://|<script|<link|@import|url\((?!#)", text)
    for part in ("prefers-color-scheme: dark", "--shape: 1.5;", 'name="viewport"'):
        assert part in text


def test_values_of_a_protocol():
    shown = protocol_list(
        {"benchmark": "", "seed": None, "texts": 1234, "frozen": True, "warnings": [], "notes": ["one", "two"]}
    )
    for key, value in (
        ("benchmark", "none"),
        ("seed", "unknown"),
        ("texts", "1,234"),
        ("frozen", "yes"),
        ("warnings", "none"),
        ("notes", "one; two"),
    ):
        assert f"<dt>{key}</dt><dd>{value}</dd>" in shown


def test_long_values_of_a_protocol_stand_last():
    shown = Page(protocol_list({"first": "x" * 61, "second": "short"})).text
    assert shown.index("second") < shown.index("first")


def test_bars_of_counts_are_shares_of_the_largest():
    shown = count_lists({"train": {"a": 8, "b": 2}, "test": {}})
    assert re.findall(r"--share:([\d.]+)%", shown) == ["100.0", "25.0"]
    assert "test" not in shown
    assert count_lists({"train": {}}) == ""


def test_a_table_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="zip"):
        table(["a", "b"], rows=[Row(name="x", cells=["1"])])
