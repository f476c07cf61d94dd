"""`twinreel bench loss`: time and memory of the contrastive losses, dense, blockwise and over a ring of devices."""

import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...base.errors import UserError, unknown
from ...base.parser import Parser
from ..measure.peak import peak_since, start_of_peak

DESCRIPTION = """\
Measure value and gradient of a contrastive loss for growing batches of embeddings.

  twinreel bench loss                                       1k to 1M rows of width 512, InfoNCE
  twinreel bench loss --batch 4096,8192 --dim 768 --loss sigmoid
  twinreel bench loss --batch 65536 --devices 8 --json      with the forms for 8 (on CPU: fake) devices

Prints, for each batch size and form, the wall time, CPU time and memory, and their ratios to the dense form:

  dense      all scores [B,B] at once, on one device
  blockwise  tiles of scores, recomputed for the gradient, on one device
  gather     blockwise over all devices, which gather the embeddings
  ring       blockwise over all devices, which pass the embeddings around a ring

As in `pretrain`, the loss gets a mask of valid rows (here all) and a hash of each row's caption (some are equal, and
such rows are not negatives of each other). Memory is the compiler's plan for one device: arguments, results and
temporaries; "measured" is, on Linux CPUs, the growth of the process. The forms of a batch take turns, so that other
load affects all alike; times are medians. A form that does not fit in free memory, or would take more than --seconds a
call, is only compiled. Fake devices share the cores of one CPU: their times show what a ring costs, not what it
saves."""
FORMS = ("dense", "blockwise", "gather", "ring")
LOSSES = ("infonce", "sigmoid")
_PROBE = 1024
BATCHES = "1024,2048,4096,8192,32768,131072,1048576"


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench loss", description=DESCRIPTION)
    parser.add_argument("--batch", default=BATCHES, metavar="N[,N...]", help="global batch sizes")
    parser.add_argument("--dim", type=int, default=512, metavar="E", help="width of the embeddings")
    parser.add_argument("--loss", default="infonce", help=f"one of {', '.join(LOSSES)}")
    parser.add_argument("--block", type=int, default=1024, help="longest side of a tile (config.loss.block)")
    parser.add_argument("--devices", type=int, default=0, help="devices of gather and ring; 0 = 4 on CPU, else all")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each form")
    parser.add_argument("--seconds", type=float, default=10.0, help="calls estimated to take longer are not timed")
    parser.add_json()
    args, _ = parser.parse(argv)
    result = bench_loss(
        _sizes(args.batch),
        dim=args.dim,
        loss=args.loss,
        block=args.block,
        devices=args.devices,
        rounds=args.rounds,
        seconds=args.seconds,
    )
    print(json.dumps(result)) if args.json else _print_table(result)
    return 0


def bench_loss(
    batches: Sequence[int],
    *,
    dim: int = 512,
    loss: str = "infonce",
    block: int = 1024,
    devices: int = 0,
    rounds: int = 5,
    seconds: float = 10.0,
) -> dict[str, Any]:
    """Compile each form of a loss at each batch size, and time it where it fits.

    Args:
      batches: global batch sizes.
      dim: width E of the embeddings.
      loss: "infonce" or "sigmoid".
      block: longest side of a tile.
      devices: devices of gather and ring; 0 = 4 on CPU, else all.
      rounds: timed calls of each form, in turns.
      seconds: a form whose call is estimated to take longer is not timed.

    Returns:
      JSON values: the settings and `rows`, one for each batch and form: `batch`, `form`, `devices`; per device
      `argument_bytes`, `temporary_bytes`, `peak_bytes` (with results) as compiled; `measured_bytes` (arguments + growth
      of this process's resident memory in a call, all devices together: a lower bound, as memory may be reused; None
      where it cannot be measured); `compile_s`; `time_s` and `cpu_s` (medians of wall time and of all threads' CPU
      time; None = not timed, for the reason in `note`); and `time_ratio`, `cpu_ratio` and `memory_ratio`, this form /
      dense in the same run.

    Raises:
      UserError: a value out of range, an unknown loss, or more devices than there are.
    """
    if loss not in LOSSES:
        raise unknown("--loss", loss, LOSSES)
    for flag, value in {"dim": dim, "block": block, "rounds": rounds, "batch": min(batches)}.items():
        if value < 1:
            raise UserError(f"--{flag} must be at least 1, got {value}")
    mesh = _mesh(devices)
    rows: list[dict[str, Any]] = []
    with _progress() as bar:
        known = _probe(min(batches), dim=dim, loss=loss, block=block, mesh=mesh)
        for batch in bar.track(sorted(batches), description="loss"):
            cases = [
                case
                for form in FORMS
                if (case := _compile(form, batch=batch, dim=dim, loss=loss, block=block, mesh=mesh)) is not None
            ]
            bar.console.print(f"batch {batch:,}: compiled {', '.join(case.row['form'] for case in cases)}")
            _time(cases, batch=batch, dim=dim, rounds=rounds, seconds=seconds, earlier=[*known, *rows])
            rows += _with_ratios([case.row for case in cases])
    return {
        "device": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "loss": loss,
        "dim": dim,
        "block": block,
        "rounds": rounds,
        "rows": rows,
    }


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--batch takes integers separated by commas, got {text!r}") from error


def _mesh(devices: int) -> Any:
    """Return a mesh of the devices; on CPU, fake devices are added if jax has not started yet."""
    import jax

    with contextlib.suppress(RuntimeError):  # jax has started with the devices that it has
        jax.config.update("jax_num_cpu_devices", devices or 4)
    have = len(jax.devices())
    if devices < 0 or devices > have:
        raise UserError(f"--devices={devices} must be from 0 to the {have} {jax.default_backend()} devices here")
    count = devices or (min(4, have) if jax.default_backend() == "cpu" else have)
    kind = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((count,), ("fsdp",), axis_types=kind, devices=jax.devices()[:count])


@dataclasses.dataclass(kw_only=True)
class _Case:
    """One form at one batch size."""

    row: dict[str, Any]
    call: Callable[..., Any]
    shardings: Any


def _compile(form: str, *, batch: int, dim: int, loss: str, block: int, mesh: Any) -> _Case | None:
    """Compile value and gradient; None if the form does not apply to this batch and these devices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

    sharded = form in ("gather", "ring")
    if sharded and (mesh.size == 1 or batch % mesh.size):
        return None
    split = NamedSharding(mesh, PartitionSpec("fsdp")) if sharded else SingleDeviceSharding(mesh.devices.flat[0])
    replicated = NamedSharding(mesh, PartitionSpec()) if sharded else split
    function = _function(loss, form=form, block=block)
    shardings = [split, split, replicated, replicated, split, split]
    shapes = [(batch, dim), (batch, dim), (), (), (batch,), (batch, 2)]
    dtypes = [*4 * [jnp.float32], jnp.bool_, jnp.uint32]
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=where)
        for shape, dtype, where in zip(shapes, dtypes, shardings, strict=True)
    ]
    begin = time.perf_counter()
    with jax.set_mesh(mesh) if sharded else contextlib.nullcontext():
        results = ((replicated, replicated), (split, split, replicated, replicated))
        compiled = jax.jit(function, out_shardings=results).lower(*arguments).compile()
    plan = compiled.memory_analysis()
    if plan is None:
        raise UserError(f"the compiler for {jax.default_backend()} does not report the memory of a program")
    row = {
        "batch": batch,
        "form": form,
        "devices": mesh.size if sharded else 1,
        "compile_s": time.perf_counter() - begin,
    }
    row |= {"argument_bytes": plan.argument_size_in_bytes, "temporary_bytes": plan.temp_size_in_bytes}
    row["peak_bytes"] = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    row |= {"measured_bytes": None, "time_s": None, "cpu_s": None, "note": ""}
    return _Case(row=row, call=compiled, shardings=shardings)


def _function(loss: str, *, form: str, block: int) -> Callable[..., Any]:
    """Value and gradients by x, y, scale and bias (which InfoNCE does not read), with the masks of the rows."""
    import jax

    from ...engine.sharding.mesh import BATCH_AXES
    from ...losses.infonce import info_nce
    from ...losses.sigmoid import sigmoid
    from ...pretrain.objective import LossOptions

    options: dict[str, Any] = {"form": "dense", "axes": BATCH_AXES, "same": LossOptions().same_text}
    if form != "dense":
        options |= {"form": "blockwise", "block": block, "exchange": "ring" if form == "ring" else "gather"}

    def value(x: Any, y: Any, scale: Any, bias: Any, valid: Any, group: Any) -> Any:
        masks = {"valid": valid, "group": group}
        if loss == "sigmoid":
            return sigmoid(x=x, y=y, scale=scale, bias=bias, **masks, **options)
        return info_nce(x=x, y=y, scale=scale, **masks, **options)

    return jax.value_and_grad(value, argnums=(0, 1, 2, 3), has_aux=True)


def _time(
    cases: list[_Case], *, batch: int, dim: int, rounds: int, seconds: float, earlier: list[dict[str, Any]]
) -> None:
    """Time the cases that fit, in turns; note why the others are not timed."""
    import jax

    free, chosen = _free_bytes(), []
    for case in cases:
        # Fake devices share one memory.
        need = case.row["peak_bytes"] * (case.row["devices"] if jax.default_backend() == "cpu" else 1)
        expected = _expected(case.row, earlier)
        if need > 0.7 * free:
            case.row["note"] = f"compiled only: needs {need / 1e9:,.1f} GB of {free / 1e9:,.1f} GB free"
        elif expected > seconds:
            case.row["note"] = f"compiled only: estimated at {expected:,.0f} s a call from smaller batches (--seconds)"
        else:
            chosen.append(case)
    if not chosen:
        return
    values = _inputs(batch, dim=dim)
    times: dict[str, list[tuple[float, float]]] = {case.row["form"]: [] for case in chosen}
    for turn in range(rounds + 1):
        for case in chosen:
            arguments = jax.device_put(values, case.shardings)
            spent, cpu, grown = _one_call(case.call, arguments)
            if turn == 0:  # warms up, and shows the memory
                held = sum(value.nbytes for value in values)
                case.row["measured_bytes"] = None if grown is None else held + grown
            else:
                times[case.row["form"]].append((spent, cpu))
    for case in chosen:
        case.row["time_s"], case.row["cpu_s"] = map(statistics.median, zip(*times[case.row["form"]], strict=True))


def _probe(batch: int, *, dim: int, loss: str, block: int, mesh: Any) -> list[dict[str, Any]]:
    """Time a small batch if the first one is large, so that every call has an estimate of its duration."""
    if batch <= 2 * _PROBE:
        return []
    case = _compile("blockwise", batch=_PROBE, dim=dim, loss=loss, block=block, mesh=mesh)
    assert case is not None
    _time([case], batch=_PROBE, dim=dim, rounds=1, seconds=float("inf"), earlier=[])
    return [case.row | {"form": form} for form in FORMS]


def _expected(row: dict[str, Any], earlier: list[dict[str, Any]]) -> float:
    """Estimate the seconds of a call from the largest smaller batch: the scores grow with its square."""
    known = [r for r in earlier if r["form"] == row["form"]]
    known = [r for r in known if r["time_s"] is not None]
    return known[-1]["time_s"] * (row["batch"] / known[-1]["batch"]) ** 2 if known else 0.0


def _inputs(batch: int, *, dim: int) -> list[Any]:
    """Return pairs of similar rows of unit length, a scale, a bias, the mask of valid rows, and the rows' groups."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, dim), np.float32)
    y = x + rng.standard_normal((batch, dim), np.float32)
    unit = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in (x, y)]
    captions = rng.integers(0, 8 * batch, size=batch, dtype=np.uint32)  # about one row in eight shares a caption
    return [*unit, np.float32(20.0), np.float32(-10.0), np.ones(batch, bool), np.stack([captions, captions], axis=1)]


def _one_call(call: Callable[..., Any], arguments: Any) -> tuple[float, float, int | None]:
    """Return wall and CPU seconds of a call, and the bytes by which the process grew."""
    import jax

    jax.block_until_ready(arguments)
    before = start_of_peak()
    begin, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call(*arguments))
    spent, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return spent, cpu, None if before is None else peak_since(before)


def _free_bytes() -> int:
    import jax
    import psutil

    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return psutil.virtual_memory().available


def _with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    dense = rows[0]
    for row in rows:
        for ratio, key in (("time_ratio", "time_s"), ("cpu_ratio", "cpu_s"), ("memory_ratio", "peak_bytes")):
            row[ratio] = None if row[key] is None or dense[key] is None else row[key] / dense[key]
    return rows


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar


def _print_table(result: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    title = f"{result['loss']}, width {result['dim']}, block {result['block']}, {result['device']}: value and gradient"
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 0))
    for name in ("batch", "form", "time, s", "/dense", "CPU, s", "/dense", "memory", "/dense", "measured"):
        table.add_column(name, justify="left" if name == "form" else "right", no_wrap=True)
    for row in result["rows"]:
        table.add_row(
            f"{row['batch']:,}",
            row["form"] if row["devices"] == 1 else f"{row['form']} x{row['devices']}",
            _seconds(row["time_s"]),
            _ratio(row["time_ratio"]),
            _seconds(row["cpu_s"]),
            _ratio(row["cpu_ratio"]),
            _bytes(row["peak_bytes"]),
            _ratio(row["memory_ratio"]),
            _bytes(row["measured_bytes"]),
        )
    console = Console()
    console.print(table)
    for row in result["rows"]:
        if row["note"]:
            console.print(f"{row['batch']:,} {row['form']}: {row['note']}")


def _ratio(value: float | None) -> str:
    """Two digits, never as a power of ten."""
    return "" if value is None else f"{float(f'{value:.2g}'):.6f}".rstrip("0").rstrip(".")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _bytes(value: float | None) -> str:
    """Three digits, in powers of 1000."""
    if value is None:
        return "-"
    power = next((i for i, limit in enumerate((1e3, 1e6, 1e9, 1e12)) if value < limit), 4)
    return f"{value / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
