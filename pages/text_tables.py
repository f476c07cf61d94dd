"""Tables outside of a page: Markdown, LaTeX (booktabs) and CSV."""

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from .tables import Row

_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|~$])")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: rf"\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "→": r"$\rightarrow$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": r"$-$",
    "≥": r"$\geq$",
    "–": "--",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a report, for any form of text.

    Attributes:
      name: short and unique in its file, such as "retrieval": the label in LaTeX, the first column in CSV.
      title: what it shows.
      head: names of the columns after the first.
      rows: the cells are text; a row marked "bound" belongs to the main row above it.
      note: stands below the table, such as the protocol.
    """

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Row]
    note: str = ""


def write_tables(folder: Path, *, tables: Sequence[Table], mark: str = "") -> list[Path]:
    """Write `tables.md`, `tables.tex` and `tables.csv`; each file is whole or absent.

    Args:
      folder: which exists.
      tables: those without rows are left out.
      mark: stands behind figures that are not to be compared; a column of its own in CSV.
    """
    kept = [table for table in tables if table.rows]
    texts = {
        "md": "\n".join(map(markdown, kept)),
        "tex": "% needs \\usepackage{booktabs}\n\n" + "\n".join(map(latex, kept)),
        "csv": csv_text(kept, mark=mark),
    }
    written = []
    for ending, text in texts.items():
        partial = folder / f"tables.{ending}.partial"
        partial.write_text(text, encoding="utf-8", newline="")
        written.append(partial.replace(folder / f"tables.{ending}"))
    return written


def markdown(table: Table) -> str:
    r"""Return a table in GitHub's Markdown; whatever Markdown would read as markup is escaped.

    >>> one = Table(name="t", title="One", head=["R@1, %"], rows=[Row(name="a|b", cells=["12.0*"])], note="of_all")
    >>> print(markdown(one))
    **One**
    <BLANKLINE>
    |  | R@1, % |
    |:---|---:|
    | a\|b | 12.0\* |
    <BLANKLINE>
    of\_all
    <BLANKLINE>
    """
    rows = [["", *table.head], *([row.name, *map(_cell, row.cells)] for row in table.rows)]
    head, *lines = (f"| {' | '.join(map(_markdown, cells))} |" for cells in rows)
    indent = ["| &nbsp;&nbsp;" if row.mark == "bound" else "| " for row in table.rows]
    lines = [start + line[2:] for start, line in zip(indent, lines, strict=True)]
    note = ["", _markdown(table.note)] if table.note else []
    return "\n".join(
        [f"**{_markdown(table.title)}**", "", head, "|:---|" + "---:|" * len(table.head), *lines, *note, ""]
    )


def latex(table: Table) -> str:
    r"""Return a `table` environment of LaTeX with the rules of booktabs.

    >>> one = Table(name="t", title="A & B", head=["R@1, %"], rows=[Row(name="x_1", cells=["12.0"])])
    >>> print(latex(one))
    \begin{table}
      \caption{A \& B}
      \label{tab:t}
      \centering
      \begin{tabular}{lr}
        \toprule
         & R@1, \% \\
        \midrule
        x\_1 & 12.0 \\
        \bottomrule
      \end{tabular}
    \end{table}
    <BLANKLINE>
    """

    def line(cells: Iterable[object], *, indent: str = "") -> str:
        return f"    {indent}{' & '.join(latex_text(_cell(cell)) for cell in cells)} \\\\"

    rows = [line([row.name, *row.cells], indent="\\quad " * (row.mark == "bound")) for row in table.rows]
    note = [f"  \\par\\smallskip\\footnotesize {latex_text(table.note)}"] if table.note else []
    return "\n".join(
        [
            "\\begin{table}",
            f"  \\caption{{{latex_text(table.title)}}}",
            f"  \\label{{tab:{re.sub('[^a-z0-9]+', '-', table.name.lower())}}}",
            "  \\centering",
            f"  \\begin{{tabular}}{{l{'r' * len(table.head)}}}",
            "    \\toprule",
            line(["", *table.head]),
            "    \\midrule",
            *rows,
            "    \\bottomrule",
            "  \\end{tabular}",
            *note,
            "\\end{table}",
            "",
        ]
    )


def csv_text(tables: Iterable[Table], *, mark: str = "") -> str:
    r"""Return tables as one CSV of a line per cell: table, row, column, value, mark. Notes are rows of their own.

    A row that belongs to the one above it is named after both.

    >>> rows = [Row(name="text to video", cells=["12.0*"]), Row(name="best case", cells=["13.0*"], mark="bound")]
    >>> print(csv_text([Table(name="t", title="One", head=["R@1, %"], rows=rows)], mark="*").replace("\r", ""))
    table,row,column,value,mark
    t,text to video,"R@1, %",12.0,*
    t,text to video: best case,"R@1, %",13.0,*
    <BLANKLINE>
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("table", "row", "column", "value", "mark"))
    marked = re.compile(rf"(?<=\d){re.escape(mark)}") if mark else None
    for table in tables:
        main = ""
        for row in table.rows:
            main, name = (main, f"{main}: {row.name}") if row.mark == "bound" else (row.name, row.name)
            for column, cell in zip(table.head, row.cells, strict=True):
                text = _cell(cell)
                bare = marked.sub("", text) if marked else text
                if text:
                    writer.writerow((table.name, name, column, bare, mark if bare != text else ""))
        if table.note:
            writer.writerow((table.name, "note", "", table.note, ""))
    return out.getvalue()


def latex_text(text: str) -> str:
    r"""Return text with what LaTeX would read as markup escaped.

    >>> latex_text("50 % of a_b → {c}")
    '50 \\% of a\\_b $\\rightarrow$ \\{c\\}'
    """
    return "".join(_LATEX.get(character, character) for character in text)


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _cell(cell: object) -> str:
    return " ".join(str(cell).split())
