"""The page of a probe, and its lines on standard output."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...pages.charts import COLOURS, Line, line_chart
from ...pages.markup import Html, tag
from ...pages.page import details, paragraph, section
from ...pages.tables import Row, table
from .zero_shot_page import write_zero_shot_page

_NAMES = {"top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class accuracy"}


def write_probe_page(path: Path, *, results: dict[str, Any]) -> Path:
    """Write the page of a probe: that of classification, with what was chosen and the figures of each draw.

    Args:
      path: the file; `probe.json` lies next to it.
      results: the content of `probe.json`.

    Returns:
      The path.
    """
    return write_zero_shot_page(path, results=results, further=[_draws(results), _chosen(results["probe"])])


def summary(results: Mapping[str, Any]) -> str:
    """Say what was trained on, and what was chosen.

    >>> protocol = {"features": "embedding", "train_clips": 1200}
    >>> summary({"protocol": protocol, "probe": {"k": 20, "temperature": 0.07, "search": "NumPy"}})
    'trained on 1,200 clips, features embedding, k 20, temperature 0.07'
    """
    protocol, facts = results["protocol"], results["probe"]
    shown = [f"trained on {protocol['train_clips']:,} clips", f"features {protocol['features']}"]
    shown += [f"C {facts['C']:.3g}"] if "C" in facts else []
    shown += [f"k {facts['k']}", f"temperature {facts['temperature']:g}"] if "k" in facts else []
    shown += [f"epoch {facts['best_epoch']} of {facts['epochs']}"] if "best_epoch" in facts else []
    return ", ".join(shown)


def draws_line(results: Mapping[str, Any]) -> list[str]:
    """Return the lines with mean and spread over the draws; [] of one draw.

    >>> block = {"mean": 50.0, "std": 2.0, "lowest": 48.0, "highest": 52.0, "n": 3}
    >>> draws_line({"over_draws": {"top1": block}})
    ['top-1 over 3 draws: 50.00 ± 2.00 (48.00 to 52.00); the table is of the first']
    """
    over = results.get("over_draws", {})
    return [
        f"{_NAMES.get(name, name)} over {one['n']} draws: {one['mean']:.2f} ± {one['std']:.2f} "
        f"({one['lowest']:.2f} to {one['highest']:.2f}); the table is of the first"
        for name, one in over.items()
    ]


def _draws(results: Mapping[str, Any]) -> Html:
    if "draws" not in results:
        return Html()
    names = list(results["over_draws"])
    rows = [Row(name=f"seed {one['seed']}", cells=[f"{one[name]:.2f}" for name in names]) for one in results["draws"]]
    for title, key in (("mean", "mean"), ("standard deviation", "std")):
        rows.append(Row(name=title, cells=[f"{results['over_draws'][name][key]:.2f}" for name in names]))
    text = "The tables and figures of the rest of this page are those of the first draw."
    head = [f"{_NAMES.get(name, name)}, %" for name in names]
    return section("Draws", table(head, rows=rows), paragraph(text))


def _chosen(facts: Mapping[str, Any]) -> Html:
    parts: list[Any] = [paragraph(f"Protocol: {facts['protocol']}.")]
    if facts.get("sweep"):
        text = f"C = {facts['C']:.3g}, the inverse strength of the L2 regularisation, was best on the validation clips."
        rows = [Row(name=f"{one['C']:.3g}", cells=[f"{one['validation']:.2f}"]) for one in facts["sweep"]]
        shown = table(["validation, %"], rows=rows, narrow=True)
        parts += [paragraph(text), details(f"all {len(rows)} values of C that were tried", shown)]
    if facts.get("losses"):
        parts += [paragraph(f"Epoch {facts['best_epoch']} of {facts['epochs']} counts."), _losses(facts["losses"])]
    return section("What was chosen", *parts)


def _losses(losses: list[dict[str, float]]) -> Html:
    epochs = list(range(1, len(losses) + 1))
    names = [name for name in ("train", "validation") if name in losses[0]]
    lines = [
        Line(name=name, x=epochs, y=[one[name] for one in losses], colour=COLOURS[number])
        for number, name in enumerate(names)
    ]
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500) if tick <= len(losses)]
    chart = line_chart(lines, name="losses", xlabel="epoch", ylabel="loss, nats", ticks=ticks)
    return tag("figure", chart, class_="full", style="max-width: 640px")
