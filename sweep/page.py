"""The page of a sweep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..pages.markup import Html, tag
from ..pages.page import details, paragraph, section, write_page
from ..pages.tables import Row, Tile, count_lists, protocol_list, table, tiles
from ..pages.trials import Axis, Repeated, curves_of_runs, parallel_axes, repeated_curves, scatter_grid
from .results import copied_flags

_SHOWN = 200  # trials in the table


def write_sweep_page(path: Path, *, results: Mapping[str, Any]) -> Path:
    """Write the page of a sweep: the best trial, charts of the parameters, curves over steps, all trials.

    Args:
      path: the file.
      results: of `results.results_of`, with `shares` of a learning curve.
    """
    best = results["best"]
    metric = str(results["metric"])
    done = [one for one in results["trials"] if one["state"] == "complete"]
    sections = [
        _headline(results) if results["trials"] else Html(),
        _best(best, results=results) if best else Html(),
        _learning_curve(results["shares"], metric=metric) if results.get("shares") else Html(),
        _parameters(done, results=results, metric=metric) if len(done) > 1 else Html(),
        _importance(results["importance"]),
        _curves(results, metric=metric),
        _table(results, path=path, metric=metric) if results["trials"] else Html(),
        section("How it was run", protocol_list(_protocol(results))),
    ]
    return write_page(
        path,
        kind="sweep",
        title=f"{results['config']} · {metric}",
        subtitle=f"{results['verb']} on {results['data'] or 'the data of the config'}, {results['better']} is better",
        sections=sections,
        footer="Each trial is a normal run: its workdir has config.json, metrics.jsonl and checkpoints.",
    )


def _headline(results: Mapping[str, Any]) -> Html:
    counts: dict[str, int] = {}
    for one in results["trials"]:
        counts[one["state"]] = counts.get(one["state"], 0) + 1
    best = results["best"]
    shown = (
        [Tile(name="best value", value=f"{best['value']:.4g}", note=f"trial {best['run']}, step {best['step']}")]
        if best
        else []
    )
    shown.append(Tile(name="trials", value=str(len(results["trials"])), note="without interrupted starts"))
    shown += [Tile(name=state, value=str(count)) for state, count in counts.items()]
    return tiles(shown)


def _best(best: Mapping[str, Any], *, results: Mapping[str, Any]) -> Html:
    flags = copied_flags(best["overrides"])
    return section(
        "The best trial",
        paragraph(
            f"Trial {best['run']} reached {best['value']:.6g} at step {best['step']}. Its run lies in ",
            tag("code", best["workdir"]),
            "; use it as any other run, or give its values to another one:",
        ),
        _text(flags),
        details("its whole command", _text(best["command"])),
        paragraph(
            "The value is the best of all evaluations of the best of all trials, so it is higher than what new clips "
            "will give; measure the chosen run on clips that took no part in the choice."
            if results["better"] == "higher"
            else "The value is the best of all evaluations of the best of all trials, so it is lower than what new "
            "clips will give; measure the chosen run on clips that took no part in the choice.",
            class_="aside",
        ),
    )


def _parameters(done: list[dict[str, Any]], *, results: Mapping[str, Any], metric: str) -> Html:
    values = [one["value"] for one in done]
    axes = [
        Axis(
            name=name,
            values=[one["values"].get(name) for one in done],
            log=isinstance(form, Mapping) and bool(form.get("log")),
        )
        for name, form in results["space"].items()
    ]
    parts: list[Any] = [paragraph(f"{len(done)} complete trials; the best one is in colour.")]
    parts.append(tag("figure", scatter_grid(axes, values=values, best=0, name="scatter", ylabel=metric), class_="full"))
    if len(axes) > 1:
        chart = parallel_axes(axes, values=values, best=0, name="parallel", ylabel=metric)
        parts += [paragraph("Each line is a trial; the darker, the better."), tag("figure", chart, class_="full")]
    return section("Parameters", *parts)


def _importance(shares: Mapping[str, float]) -> Html:
    if not shares:
        return Html()
    text = (
        "Share of the variance of the values that each parameter explains by itself, over the whole space, by fANOVA "
        "(Hutter et al. 2014), in percent. Of few trials it is a hint at best; pruned trials take no part."
    )
    percent = {name: round(100 * share) for name, share in shares.items()}
    return section("Importance", paragraph(text), count_lists({"percent": percent}))


def _curves(results: Mapping[str, Any], *, metric: str) -> Html:
    curves = {one["run"]: one["curve"] for one in results["trials"] if one["curve"]}
    if not curves:
        return Html()
    stopped = [one["run"] for one in results["trials"] if one["state"] == "pruned"]
    best = results["best"]["run"] if results["best"] else ""
    chart = curves_of_runs(curves, best=best, stopped=stopped, name="curves", ylabel=metric)
    text = "The best trial is in colour" + (", trials that were stopped early are dotted." if stopped else ".")
    return section("Over the steps", paragraph(text), tag("figure", chart, class_="full"))


def _learning_curve(shares: Mapping[str, Any], *, metric: str) -> Html:
    points = shares["points"]
    if not points:
        return Html()
    series = [Repeated(name="", x=[one["share"] for one in points], values=[one["values"] for one in points])]
    chart = repeated_curves(
        series, name="shares", xlabel="share of the training files", ylabel=metric, log=len(points) > 1
    )
    rows = [
        Row(
            name=f"{one['share']:g}",
            cells=[
                f"{one['mean']:.4g}",
                f"{one['std']:.3g}" if len(one["values"]) > 1 else "",
                str(len(one["values"])),
            ],
        )
        for one in points
    ]
    chosen = copied_flags(shares["overrides"]) if shares["overrides"] else "the config as it is"
    return section(
        "Learning curve",
        paragraph("Mean over draws of files and seeds, with a band of one standard deviation."),
        tag("figure", chart, class_="full", style="max-width: 760px"),
        table(["mean", "standard deviation", "runs"], rows=rows, narrow=True),
        paragraph("Values: ", tag("code", chosen), class_="aside"),
    )


def _table(results: Mapping[str, Any], *, path: Path, metric: str) -> Html:
    names = list(results["space"])
    rows = []
    for one in results["trials"][:_SHOWN]:
        link = _link(one, folder=path.parent)
        value = "" if one["value"] is None else f"{one['value']:.5g}"
        step = "" if one["step"] is None else f"{one['step']:,}"
        seconds = "" if one["seconds"] is None else f"{one['seconds']:,.0f}"
        cells = [value, step, *(_cell(one["values"].get(name)) for name in names), seconds, one["state"], link]
        rows.append(Row(name=one["run"], cells=cells, mark="main" if one is results["trials"][0] else ""))
    head = [metric, "step", *names, "s", "state", "report"]
    more = len(results["trials"]) - _SHOWN
    note = f"{more} further trials are in results.json." if more > 0 else "results.json has the same with commands."
    failed = [one for one in results["trials"] if one["error"]]
    parts: list[Any] = [table(head, rows=rows), paragraph(note, class_="aside")]
    parts += [details(f"trial {one['run']} failed", _text(one["error"])) for one in failed[:20]]
    return section("All trials", *parts)


def _text(text: str) -> Html:
    """Return text to copy; long lines wrap."""
    return tag("pre", text, style="white-space: pre-wrap; overflow-wrap: anywhere")


def _link(one: Mapping[str, Any], *, folder: Path) -> object:
    report = Path(one["workdir"]) / "report" / "index.html"
    if not report.is_file():
        return ""
    return tag("a", "open", href=f"{Path(one['workdir']).relative_to(folder).as_posix()}/report/index.html")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _protocol(results: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        name: results[name] for name in ("config", "verb", "init", "data", "sampler", "pruner", "metric", "better")
    }
    forms = {name: str(form) for name, form in results["space"].items()}
    return shown | ({"space": forms} if forms else {}) | {"twinreel": results["twinreel"]}
