"""The figures of a retrieval report as a table on standard output."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from ..protocols.comparison import COMPARED
from ..protocols.groups import GROUPS
from ..protocols.marks import legend, mark_of
from ..protocols.repeated import ROWS, repetition
from ..protocols.retrieval import DIRECTIONS, INTERVALS
from ..protocols.scored import READ_AS, RERANKED
from .controls_terminal import further_tables
from .further import flat, shown
from .main_tables import difference

_NOTABLE = 0.05  # p of gaps that are printed; the page shows all
_KEYS = ("R@1", "R@5", "R@10", "MdR", "MnR")


def print_table(results: dict[str, Any]) -> None:
    """Print the figures of a report (the content of `retrieval.json`) as one table, and remarks below it."""
    protocol, mark = results["protocol"], mark_of(results)
    table = Table()
    for name in ("", *_KEYS):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for key, name in ROWS.items():
        if block := results.get(key):
            table.add_row(name, *_cells(block, mark=mark))
            if block["optimistic"] != block["pessimistic"]:
                for bound in ("optimistic", "pessimistic"):
                    table.add_row(f"  {bound}", *_cells(block[bound], mark=mark), style="dim")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"zero-shot retrieval, {protocol['dataset'] or 'embeddings'} / {protocol['split'] or 'all'}: "
        f"{protocol['texts']} texts, {protocol['videos']} videos"
    )
    console.print(table)
    for line in remarks(results):
        console.print(line)
    for part in further_tables(results):
        console.print(part)
    for name, block in results.get(RERANKED, {}).items():
        console.print(_reranked(name, block, mark=mark))
    for name, block in results.get(READ_AS, {}).items():
        console.print(_reading(name, block, mark=mark))


def _cells(figures: dict[str, Any], *, mark: str) -> list[str]:
    return [f"{figures[key]:.1f}{mark}" for key in _KEYS]


def _reranked(name: str, block: dict[str, Any], *, mark: str) -> Table:
    """Return the figures of re-ranked scores."""
    table = Table(title=f"re-ranked: {name}", title_justify="left")
    for key in ("", *_KEYS):
        table.add_column(key, justify="right" if key else "left", no_wrap=True)
    for key in ("text_to_video", "video_to_text"):
        if key in block:
            table.add_row(ROWS[key], *_cells(block[key], mark=mark))
    return table


def _reading(name: str, block: dict[str, Any], *, mark: str) -> Table:
    """Return another project's figures under its own names; two bounds where the order of ties decides."""
    table = Table(title=f"as {name}: {block['about']}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in flat(block["figures"]):
        table.add_row(key, shown(value, mark=mark))
    return table


def remarks(results: dict[str, Any]) -> list[str]:
    """Return a line for each thing that the table alone would hide, such as repeated texts and missing clips."""
    protocol, coverage, mark = results["protocol"], results["coverage"], mark_of(results)
    lines = [_marked(line, mark=mark) for line in repetition(results)]
    for name, block in results.get(COMPARED, {}).items():
        for key, figures in block.items():
            parts = (f"{k} {difference(one)}" for k, one in figures.items())
            lines.append(f"less {name}, {ROWS[key]}: {', '.join(parts)}")
    for key, drawn in results.get(INTERVALS, {}).items():
        ends = (f"{name} {one['low']:.1f}{mark} to {one['high']:.1f}{mark}" for name, one in drawn.items())
        lines.append(f"95 % intervals, {ROWS[key]}: {', '.join(ends)}")
    lines += [line for name in results.get(GROUPS, {}) for line in _gaps(results, name, mark=mark)]
    if protocol["videos_without_text"]:
        lines.append(f"{protocol['videos_without_text']} videos have no text: candidates only")
    if protocol.get("benchmark"):
        lines.append(f"benchmark {protocol['benchmark']}, subset id {str(protocol['subset_id'])[:16]}")
    if coverage["missing"]:
        lines.append(f"coverage {100 * coverage['fraction']:.2f} %: {coverage['missing']} clips are missing")
    if twins := results.get("order_twins"):
        shuffled = twins["accuracy_shuffled"]
        lines.append(
            f"order twins {twins['accuracy']:.1f} %{mark} of {twins['n']} captions (chance 50 %)"
            + (f", frames shuffled {shuffled:.1f} %{mark}" if shuffled is not None else "")
        )
    if pairs := results.get("minimal_pairs"):
        shares = (f"{name} {one['accuracy']:.1f} %{mark}" for name, one in pairs.items())
        lines.append(f"minimal pairs (chance 50 %): {', '.join(shares)}")
    if block := results.get("multiple_choice"):
        share, chance = f"{block['accuracy']:.1f} %{mark}", f"chance {block['chance']:.1f} %"
        lines.append(f"multiple choice, caption and foils: {share} of {block['n']} clips ({chance})")
    lines += [f"not as the protocol of the benchmark: {one}" for one in protocol.get("deviations") or []]
    return lines + ([legend(results)] if mark else [])


def _gaps(results: dict[str, Any], name: str, *, mark: str) -> Iterator[str]:
    """Describe gaps of R@1 between the groups of a field that chance would seldom give."""
    field = results[GROUPS][name]
    for key in DIRECTIONS:
        gap = field.get(key, {}).get("gap", {}).get("R@1")
        if gap and gap["p"] <= _NOTABLE:
            worst, best = (f"{field[key]['groups'][gap[end]]['R@1']['value']:.1f}{mark}" for end in ("worst", "best"))
            yield (
                f"{ROWS[key]}, R@1 by {field['title']}: {worst} ({gap['worst']}) to {best} ({gap['best']}), gap "
                f"{gap['difference']:.1f}{mark} ({gap['low']:.1f}{mark} to {gap['high']:.1f}{mark}), p {gap['p']:.2g}"
            )


def _marked(line: str, *, mark: str) -> str:
    """Put the mark behind each percentage of a sentence."""
    return line.replace(" %", f" %{mark}")
