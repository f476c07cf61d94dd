"""Print a plan as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..cost.scaling import FORMS
from ..engine.start.collectives import OVERLAP
from .advice import describe_changes, flags

_KINDS = {
    "parameters": "parameters",
    "optimizer": "optimizer state",
    "batch": "batch",
    "activations": "activations kept for backward (estimate)",
    "temporaries": "other temporaries",
    "program": "program",
    "other": "results and padding",
}


def print_plan(result: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print what `plan.plan` returns."""
    console = console or Console(soft_wrap=True)
    mesh = " x ".join(f"{axis}={size}" for axis, size in result["mesh"].items())
    console.print(f"[bold]{result['topology']['description']}[/], mesh {mesh}, global batch {result['batch_size']:,}")
    console.print(f"vocabulary of {result['vocabulary']['size']:,} ({result['vocabulary']['source']})")
    if len(result["phases"]) > 1:
        console.print(_phases(result))
    if result["fits"]:
        console.print(_memory_table(result))
        console.print(_cost_table(result))
        console.print(_collectives_table(result))
        for name, value in result["compiler_options"].items():
            console.print(f"compiled with {name}={value}{_why(name)}")
        if result["time"]:
            _print_assumptions(result, console=console)
    else:
        _print_out_of_memory(result, console=console)


def print_search(result: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print the ranking of `search.search`: a column for each field in which the tries differ."""
    console = console or Console(soft_wrap=True)
    phase = f", in phase {result['phase']!r}, the largest" if result["phase"] else ""
    table = Table(title=f"fits on {result['topology']['description']}, fastest first{phase}", title_justify="left")
    tries = [one["changes"] for one in result["ranked"]]
    varied, same = _varied(tries)
    for name in (*(field.split(".")[-1] for field in varied), "memory", "step", "MFU"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound by")
    for one in result["ranked"]:
        values = [str(one["changes"].get(name, "unchanged")) for name in varied]
        if not one["fits"]:
            table.add_row(*values, "[red]does not fit[/]", "", "", "")
            continue
        time = one["time"] or {}
        table.add_row(
            *values,
            size(one["memory_bytes"]),
            f"{1e3 * time['step_s']:.0f} ms" if time else "unknown",
            f"{100 * time['mfu']:.1f} %" if time else "",
            time.get("bound", ""),
        )
    if result["ranked"]:
        console.print(table)
    if same:
        console.print(f"all have {describe_changes(same)}")
    for name, reason in result["refused"].items():
        console.print(f"impossible: {name} ({escape(reason)})")
    if result["left"]:
        console.print(f"{result['left']} more were not compiled in the time; the same command again goes on with them")
    if result["passed_over"]:
        console.print(f"{result['passed_over']} were passed over: not faster in any case, or too large")
    if result["fits"]:
        console.print(f"the fastest as flags: {flags(tries[0])}")
        return
    least, there = result["least"], result["topology"]["hbm_bytes"]
    has = f"; a chip has {size(there)}" if there else ""
    console.print(
        f"[bold red]nothing fits[/]: the smallest estimate is {size(least['bytes'])} a chip, with "
        f"{describe_changes(least['changes'])}{has}. Take more chips or chips with more memory, a smaller "
        "config.data.batch_size, config.loss.form='blockwise', fewer frames, or smaller towers."
    )


_STEPS = {
    "chips": lambda row: f"{row['chips']:,}",
    "slices": lambda row: f"{row['slices']:,}",
    "batch": lambda row: f"{row['batch']:,}",
    "parts": lambda row: f"{row['parts']}",
    "ms": lambda row: f"{1e3 * row['step_s']:,.0f}",
    "per chip": lambda row: f"{row['efficiency']:.0%}",
    "links MB, chip": lambda row: f"{row['ici_bytes'] / 1e6:,.0f}",
    "network MB, host": lambda row: f"{row['host_dcn_mb']:,.0f}",
    "loss": lambda row: row["loss_form"],
    "MB, chip": lambda row: f"{row['loss_bytes'] / 1e6:,.0f}",
}
_HOSTS = {
    "chips": lambda row: f"{row['chips']:,}",
    "hosts": lambda row: f"{row['hosts']:,}",
    "data MB/s": lambda row: f"{row['host_stored_mb_s']:,.0f}",
    "all GB/s": lambda row: f"{row['fleet_stored_gb_s']:,.1f}",
    "cores": lambda row: f"{row['host_decode_cores']:,.1f}",
    "memory GB": lambda row: f"{row['host_memory_gb']:,.1f}",
    "checkpoint MB/s": lambda row: f"{row['host_checkpoint_mb_s']:,.2f}",
    "all MB/s": lambda row: f"{1e3 * row['fleet_checkpoint_gb_s']:,.0f}",
    "restore s": lambda row: f"{row['restore_s']:,.1f}",
    "all TB": lambda row: f"{row['fleet_restore_tb']:,.2f}",
}


def print_scale(result: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print what `scale.scale` returns, one line for each number of chips."""
    console = console or Console(soft_wrap=True)
    batch = "clips of a chip stay" if result["batch"] == "per_chip" else "the global batch stays"
    titles = {f"one step on {result['chip']}; {batch}": _STEPS, "a host, and all of them": _HOSTS}
    for title, columns in titles.items():
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name, text in columns.items():
            widest = max(len(text(row)) for row in result["rows"])
            table.add_column(name, justify="left" if name == "loss" else "right", min_width=widest)
        for row in result["rows"]:
            table.add_row(*(text(row) for text in columns.values()))
        console.print(table)
    for row in result["rows"]:
        if FORMS.index(row["proposed_form"]) > FORMS.index(row["loss_form"]):
            console.print(
                f"{row['chips']:,} chips: take config.loss.form='blockwise', exchange={row['proposed_form']!r}"
            )
    for reason in result["impossible"].values():
        console.print(f"left out: {escape(reason)}")
    shares = result["assumptions"]
    console.print(
        f"Assumed: matrix products at {shares['matmul']:.0%} of the peak and no wait for memory; links at "
        f"{shares['links']:.0%} of one link, the network at {shares['network']:.0%}, {shares['overlap']:.0%} of "
        f"sending overlapped; parameters gathered and gradients summed in {result['workload']['compute_bytes']} "
        f"bytes; {1e6 * shares['decode_s']:.0f} us of a core for a frame; a checkpoint within "
        f"{shares['save_share']:.0%} of the time between two, written by all hosts, read whole by each; "
        f"{shares['process_gb']:.0f} GB for a process; a form of the loss may take {shares['loss_share']:.0%} of a "
        "chip's memory."
    )


def _varied(tries: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """Return the fields in which tries differ, in their order, and the common fields with their values."""
    fields = list(dict.fromkeys(name for changes in tries for name in changes))
    values = {name: {repr(changes.get(name)) for changes in tries} for name in fields}
    varied = [name for name in fields if len(values[name]) > 1]
    return varied, {name: tries[0][name] for name in fields if name not in varied}


def size(count: float) -> str:
    """Return bytes with a binary prefix.

    >>> size(3 * 2**30), size(1536)
    ('3.00 GiB', '1.50 KiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} TiB"


def count(number: float) -> str:
    """Return a large number with a decimal prefix.

    >>> count(2.5e12), count(31)
    ('2.50 T', '31.00')
    """
    for unit in ("", " k", " M", " G"):
        if abs(number) < 1000:
            return f"{number:.2f}{unit}"
        number /= 1000
    return f"{number:,.2f} T"


def _phases(result: Mapping[str, Any]) -> str:
    """Return which phase of the run the tables describe, and the needs of the others."""
    first, others = "", []
    for one in result["phases"]:
        name = f"phase {one['phase']!r} ({one['steps']:,} steps)"
        if one["phase"] == result["phase"]:
            first = f"memory and cost of a step refer to {name}, the largest"
            continue
        time = "" if one["step_s"] is None else f", {1e3 * one['step_s']:,.0f} ms a step"
        memory = f", {size(one['memory_bytes'])}" if one["memory_bytes"] else ""
        others.append(f"{name}: {'fits' if one['fits'] else 'does not fit'}{memory}{time}")
    return "; ".join([first, *others, "the input rate refers to the fastest"])


def _memory_table(result: Mapping[str, Any]) -> Table:
    table = Table(title="memory of a chip", title_justify="left")
    table.add_column("kind")
    table.add_column("size", justify="right")
    for kind, name in _KINDS.items():
        table.add_row(name, size(result["memory"][kind]))
    total, there = sum(result["memory"].values()), result["topology"]["hbm_bytes"]
    table.add_section()
    table.add_row("total", size(total) + (f" of {size(there)} ({100 * total / there:.0f} %)" if there else ""))
    return table


def _cost_table(result: Mapping[str, Any]) -> Table:
    table = Table(title="one step and the run", title_justify="left")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    flops, time, feed, run = (result[key] for key in ("flops", "time", "input", "run"))
    least = "at least " if flops["lower_bound"] else ""
    table.add_row("parameters", f"{result['parameters']:,}")
    table.add_row("model FLOPs of a chip", least + count(flops["model_per_chip"]))
    table.add_row("recomputed FLOPs of a chip", count(flops["recomputed_per_chip"]))
    if flops["tile_padding_per_chip"]:
        table.add_row("FLOPs on padding of matrix units", count(flops["tile_padding_per_chip"]))
    table.add_row("memory traffic of a chip", size(result["hbm_bytes_per_chip"]))
    if time:
        table.add_row("step time (estimate)", f"{1e3 * time['step_s']:,.0f} ms")
        for key, name in (
            ("compute_s", "compute"),
            ("hbm_s", "memory"),
            ("links_s", "links"),
            ("network_s", "network"),
        ):
            table.add_row(f"  {name}", f"{1e3 * time[key]:,.0f} ms")
        table.add_row("MFU (estimate)", f"{100 * time['mfu']:.1f} %")
    table.add_section()
    table.add_row("hosts", f"{feed['hosts']:,}")
    table.add_row("clips of a step, per host", f"{feed['clips_per_step']:,.0f}")
    if time:
        table.add_row("clips/s, per host", f"{feed['clips_per_s']:,.0f} ({feed['frames_per_s']:,.0f} frames/s)")
        table.add_row("decoded pixels to the chips, per host", f"{feed['decoded_mb_per_s']:,.0f} MB/s")
        what = "JPEGs and sound" if feed["sound_bytes_per_clip"] else "JPEGs"
        table.add_row(f"{what} from storage, per host (estimate)", f"at least {feed['stored_mb_per_s']:,.0f} MB/s")
    table.add_section()
    table.add_row("checkpoint", size(result["checkpoint_bytes"]))
    table.add_row("samples", f"{run['samples']:,} ({run['steps']:,} steps)")
    if time:
        table.add_row("hours", f"{run['hours']:,.1f}")
        table.add_row("chip-hours", f"{run['chip_hours']:,.0f}")
    table.add_row("compiled in", f"{result['compile_s']:.0f} s")
    return table


def _collectives_table(result: Mapping[str, Any]) -> Table:
    least = " (at least: the length of some loops is unknown)" if result["bytes_are_lower_bound"] else ""
    table = Table(title=f"collectives of a step{least}", title_justify="left")
    for name in ("kind", "mesh axes", "over", "calls", "bytes", "sent by a chip", "while computing"):
        table.add_column(name, justify="left" if name in ("kind", "mesh axes", "over") else "right")
    for one in result["collectives"]:
        over = "network" if one["over_network"] else "links"
        calls, beside = f"{one['calls']:,}", one["beside"] / one["sent"] if one["sent"] else 0.0
        sizes = size(one["bytes"]), size(one["sent"])
        table.add_row(one["kind"], " ".join(one["axes"]), over, calls, *sizes, f"{beside:.0%}")
    return table


def _why(name: str) -> str:
    """Return what a compiler option is for, if it is one of ours."""
    found = [options[name].why for options in OVERLAP.values() if name in options]
    return f": {found[0]}" if found else ""


def _print_assumptions(result: Mapping[str, Any], *, console: Console) -> None:
    shares = result["assumptions"]
    console.print(
        f"The time estimate assumes matrix products at {shares['matmul']:.0%} of the peak "
        f"({escape(result['matmul_source'])}), memory at "
        f"{shares['hbm']:.0%} of its bandwidth, links at {shares['links']:.0%}, the hosts' network at "
        f"{shares['network']:.0%}, and {shares['overlap']:.0%} of communication overlapped with compute. "
        f"Bound by: {result['time']['bound']}."
    )


def _print_out_of_memory(result: Mapping[str, Any], *, console: Console) -> None:
    failed = result["out_of_memory"]
    if result["memory"]:  # it compiles, but all together is too much
        console.print(_memory_table(result))
    if failed["needed"] is None:
        console.print("[bold red]does not compile[/]: " + escape(failed["message"].strip().splitlines()[0]))
        return
    console.print(
        f"[bold red]does not fit[/]: the step needs {size(failed['needed'])} of a chip's {size(failed['limit'])}"
    )
    table = Table(title="memory of a chip, largest first", title_justify="left")
    table.add_column("kind")
    table.add_column("size", justify="right")
    for kind, number in sorted(result["resident_bytes"].items(), key=lambda item: -item[1]):
        table.add_row(kind.replace("_", " "), size(number))
    console.print(table)
    for number, what in failed["largest"][:5]:
        console.print(f"  {size(number):>12}  {what}")
    for one in result.get("advice", []):
        changes = describe_changes(one["changes"])
        if one["fits"]:
            time = f", step {1e3 * one['time']['step_s']:.0f} ms" if one["time"] else ""
            console.print(f"[green]fits[/] with {changes}: {size(one['memory_bytes'])}{time}")
        else:
            console.print(f"[red]does not fit[/] with {changes} either (the last change of this kind that was tried)")
