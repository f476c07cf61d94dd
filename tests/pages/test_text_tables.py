"""Tables as text: what is escaped comes back, as other readers of the formats see it."""

import csv
import doctest
import io
import re

import pytest

from twinreel.pages import text_tables
from twinreel.pages.tables import Row
from twinreel.pages.text_tables import Table, csv_text, latex, latex_text, markdown, write_tables

NASTY = r"50 % of a_b & {c} | #1 $x$ ~^\ <b>"
TABLE = Table(
    name="main figures",
    title="R@1 & more",
    head=("R@1, %", "a|b"),
    rows=[
        Row(name=NASTY, cells=["98.10*", "1,000"], mark="main"),
        Row(name="95 % interval", cells=["97.0* – 99.0*", ""], mark="bound"),
    ],
    note="* 1 of 24 clips is missing_here.",
)


def test_examples():
    result = doctest.testmod(text_tables)
    assert result.attempted and not result.failed


def test_markdown_has_the_cells_of_each_row_and_no_markup():
    lines = [line for line in markdown(TABLE).splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert [len(row) for row in cells] == [3, 3, 3, 3]
    plain = [re.sub(r"\\(.)", r"\1", cell).strip() for cell in cells[2]]
    assert plain == [NASTY, "98.10*", "1,000"]
    assert cells[3][0].strip() == "&nbsp;&nbsp;95 % interval"
    assert "missing\\_here" in markdown(TABLE)


def test_latex_has_balanced_braces_and_as_many_columns_as_its_head_says():
    text = latex(TABLE)
    bare = re.sub(r"\\[{}&%$#_\\]", "", text)
    assert bare.count("{") == bare.count("}") and not re.search(r"[%#_|~]", bare)
    assert text.count(r"\begin") == text.count(r"\end") == 2
    (form,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    rows = re.findall(r"^ {4}(?!\\)(.*) \\\\$", text, re.MULTILINE)
    rows += re.findall(r"^ {4}\\quad (.*) \\\\$", text, re.MULTILINE)
    assert len(rows) == 3 and {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(form)} == {3}
    assert r"\label{tab:main-figures}" in text and "97.0* -- 99.0*" in text


@pytest.mark.parametrize("character", "\\&%$#_{}~^<>|")
def test_each_character_with_a_meaning_in_latex_is_escaped(character):
    assert latex_text(f"a{character}b") not in (f"a{character}b", "ab")


def test_csv_has_a_line_for_each_figure_and_the_mark_apart():
    rows = list(csv.DictReader(io.StringIO(csv_text([TABLE], mark="*"))))
    assert [row["row"] for row in rows] == [NASTY, NASTY, f"{NASTY}: 95 % interval", "note"]
    assert [(row["column"], row["value"], row["mark"]) for row in rows[:3]] == [
        ("R@1, %", "98.10", "*"),
        ("a|b", "1,000", ""),
        ("R@1, %", "97.0 – 99.0", "*"),
    ]
    assert rows[3]["value"] == TABLE.note


def test_files_are_whole_and_leave_out_empty_tables(tmp_path):
    empty = Table(name="none", title="Nothing", head=("a",), rows=[])
    written = write_tables(tmp_path, tables=[TABLE, empty], mark="*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tables.csv", "tables.md", "tables.tex"]
    assert all("Nothing" not in path.read_text(encoding="utf-8") for path in written)
