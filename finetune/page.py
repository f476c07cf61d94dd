"""The page of a classification report; it wears the style sheet of the retrieval report."""

from html import escape
from pathlib import Path
from typing import Any

from .. import __version__, evaluate

_STYLE = Path(evaluate.__file__).parent / "templates" / "style.css"
_MOST_LISTED = 50


def page_of(report: dict[str, Any], *, title: str, protocol: dict[str, Any], pictures: dict[str, str]) -> str:
    """Return the HTML of a report.

    Args:
      report: what `report.classification_report` returned.
      title: heading of the page.
      protocol: how the figures were made.
      pictures: clip_id -> file beside the page that shows the clip, for some of the mistakes.
    """
    sections = [
        _figures(report),
        _classes(report),
        '<section><h2>Confusion</h2><img class="matrix" src="confusion.png" alt="confusion matrix"></section>',
        _mistakes(report["mistakes"], total=report["n"], pictures=pictures),
        _protocol(protocol),
    ]
    return _PAGE.format(
        title=escape(title),
        subtitle=escape(f"{report['n']:,} clips · {len(report['per_class']):,} classes"),
        style=_STYLE.read_text(encoding="utf-8") + _OWN_STYLE,
        body="\n".join(sections),
        version=escape(__version__),
    )


def _figures(report: dict[str, Any]) -> str:
    low, high = report["accuracy_interval_95"]
    tiles = [
        ("Accuracy", report["accuracy"], f"95 % interval: {low:.1f} to {high:.1f}"),
        ("Balanced accuracy", report["balanced_accuracy"], f"mean recall; chance {report['chance']:.1f} %"),
        ("Macro F1", report["macro"]["f1"], "mean over the classes"),
        ("Majority", report["majority"], "naming the most frequent class"),
    ]
    if "top5_accuracy" in report:
        tiles.insert(1, ("Top-5 accuracy", report["top5_accuracy"], "right class among the first five"))
    cells = "".join(
        f'<div class="tile"><dt>{name}</dt><dd>{value:.1f}<small>%</small></dd><p>{note}</p></div>'
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _classes(report: dict[str, Any]) -> str:
    named = {**report["per_class"], "mean over classes": report["macro"], "mean over clips": report["weighted"]}
    rows = [
        [name, *(f"{row[key]:.1f}" for key in ("precision", "recall", "f1")), f"{row.get('support', report['n']):,}"]
        for name, row in named.items()
    ]
    return f"<section><h2>Classes</h2>{_table(['precision, %', 'recall, %', 'F1, %', 'clips'], rows)}</section>"


def _mistakes(mistakes: list[dict[str, Any]], *, total: int, pictures: dict[str, str]) -> str:
    if not mistakes:
        return "<section><h2>Mistakes</h2><p>None.</p></section>"
    cards = "".join(
        f'<figure class="clip wrong"><img src="{escape(pictures[clip["clip_id"]])}" alt="{escape(clip["clip_id"])}">'
        f'<figcaption><span class="note"><b>{escape(clip["predicted"])}</b> {clip["probability"]:.0f} %</span>'
        f'<span class="own">is {escape(clip["label"])} ({escape(clip["clip_id"])})</span></figcaption></figure>'
        for clip in mistakes
        if clip["clip_id"] in pictures
    )
    listed = mistakes[:_MOST_LISTED]
    rows = [[clip["clip_id"], clip["label"], clip["predicted"], f"{clip['probability']:.1f}"] for clip in listed]
    which = f"the surest {len(listed)} are listed" if len(mistakes) > len(listed) else "the surest first"
    table = _table(["true class", "predicted", "probability, %"], rows)
    return (
        f"<section><h2>Mistakes</h2><p>{len(mistakes):,} of {total:,} clips; {which}.</p>"
        f'<div class="strip six">{cards}</div><details><summary>as a table</summary>{table}</details></section>'
    )


def _protocol(protocol: dict[str, Any]) -> str:
    rows = []
    for key, value in protocol.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        mark = ' class="long"' if len(text) > 60 else ""
        rows.append(f"<div{mark}><dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(text)}</dd></div>")
    rows.sort(key=lambda row: 'class="long"' in row)
    return f'<section><h2>Protocol</h2><dl class="protocol">{"".join(rows)}</dl></section>'


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A table whose rows begin with their name."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return f'<div class="wide"><table><thead><tr><td></td>{top}</tr></thead><tbody>{body}</tbody></table></div>'


_OWN_STYLE = """
:root { --shape: 4 / 3; }
.matrix { display: block; max-width: 100%; background: white; border-radius: 5px; }
.strip.six { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); row-gap: 24px; margin-bottom: 20px; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: classification</title>
<style>
{style}</style>
</head>
<body>
<main>
<header class="top">
<p class="mark">twinreel <span>classification</span></p>
<h1>{title}</h1>
<p class="subtitle">{subtitle}</p>
</header>
{body}
<footer>
<p>Made by twinreel {version}. The same figures are in <a href="classification.json">classification.json</a>.</p>
</footer>
</main>
</body>
</html>
"""
