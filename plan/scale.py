"""`twinreel plan --scale`: a config on 8 to 8,192 chips, by arithmetic: rates, bytes, memory and time."""

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ..base.config import Config
from ..base.errors import UserError, unknown
from ..base.section import field_of, section
from ..cost.chips import Chip, matrix_tile
from ..cost.flops import count_flops
from ..cost.gpus import Gpu
from ..cost.scaling import Row, ScaleAssumptions, Workload, powers_of_two, relative_step, scale_row
from ..cost.tpus import Tpu
from ..data.options import DataOptions
from ..engine.loop.options import TrainOptions
from ..engine.sharding.mesh import make_mesh
from ..pretrain.loss_options import LossOptions
from .feed import input_rate
from .program import changed, checkpoint_bytes, trace
from .topology import Topology, topology_devices

BATCHES = ("per_chip", "fixed")
_PASSES = {"infonce": 4, "mil_nce": 4, "sigmoid": 3}  # blockwise: `losses.streaming`; a dense form needs 3
_MOST_CHIPS = 65_536


def scale(config: Config, *, topology: Topology, sizes: str, batch: str, shares: ScaleAssumptions) -> dict[str, Any]:
    """Return what a config needs on each number of chips.

    Args:
      config: as for `pretrain`.
      topology: the kind of chips, and how many of them the config's batch is meant for.
      sizes: "8..8192": powers of two from the first to the second.
      batch: "per_chip": as many clips on a chip as the config has on `topology`; "fixed": the config's global batch.
      shares: assumptions.

    Returns:
      JSON values: `chip`, `batch`, `assumptions`, `workload` (`cost.scaling.Workload`), `rows` (`cost.scaling.Row`,
      with `efficiency`: clips/s per chip as a share of the first row's), `impossible` (chips -> why).

    Raises:
      UserError: sizes in another form, fake devices, a mesh or a batch that fits none of the sizes.
    """
    if topology.chip is None:
        raise UserError(f"--topology={topology.name}: --scale needs the figures of a chip; name one, such as v5e-256")
    if batch not in BATCHES:
        raise unknown("value of --scale_batch", batch, BATCHES)
    chip, work, shares = topology.chip, workload(config, topology=topology), shares.on(topology.chip)
    rows, impossible = [], {}
    for chips in chip_counts(sizes):
        clips = config.data.batch_size * chips / topology.chips if batch == "per_chip" else config.data.batch_size
        ways = chips * chip.devices / work.tensor
        try:
            slices = slices_for(chip, chips=chips)
            _check(work, chip=chip, chips=chips, slices=slices, batch=clips, ways=ways)
        except UserError as error:
            impossible[str(chips)] = str(error)
            continue
        rows.append(scale_row(work, chip=chip, chips=chips, slices=slices, batch=int(clips), shares=shares))
    if not rows:
        raise UserError(f"--scale={sizes}: none of these sizes is possible: {'; '.join(impossible.values())}")
    shown = [dataclasses.asdict(row) | {"efficiency": share}
             for row, share in zip(rows, relative_step(rows), strict=True)]  # fmt: skip
    return {
        "chip": chip.kind,
        "batch": batch,
        "assumptions": dataclasses.asdict(shares),
        "workload": dataclasses.asdict(work),
        "rows": shown,
        "impossible": impossible,
    }


def chip_counts(sizes: str) -> list[int]:
    """Return the numbers of chips that "8..8192" names.

    >>> chip_counts("8..64")
    [8, 16, 32, 64]
    """
    match = re.fullmatch(r"(\d+)\.\.(\d+)", sizes)
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= _MOST_CHIPS:
        raise UserError(
            f"--scale={sizes!r} must be two numbers of chips, the smaller one first, of at most {_MOST_CHIPS:,}: "
            "8..8192"
        )
    found = powers_of_two(int(match[1]), most=int(match[2]))
    if not found:
        raise UserError(f"--scale={sizes!r} has no power of two between its ends; write 8..8192")
    return found


def slices_for(chip: Chip, *, chips: int) -> int:
    """Return how many groups of chips with links of their own make so many chips: slices of TPUs, hosts of GPUs.

    Raises:
      UserError: there is no such slice, or the chips fill no whole hosts.
    """
    if isinstance(chip, Gpu):
        if chips > chip.host_chips and chips % chip.host_chips:
            raise UserError(f"{chips} GPUs fill no whole hosts of {chip.host_chips}")
        return max(1, chips // chip.host_chips)
    assert isinstance(chip, Tpu)
    fitting = [size for size in chip.named_slices() if size <= chips and chips % size == 0]
    if chips < chip.host_chips or not fitting:
        raise UserError(f"{chip.name} has no slice of {chips} chips in whole hosts of {chip.host_chips}")
    return chips // max(fitting)


def workload(config: Config, *, topology: Topology) -> Workload:
    """Trace a config's step for fake devices with few clips, and return its sizes.

    Self-attention is counted as XLA computes it: a kernel recomputes a little less.
    """
    data, loss = DataOptions.of(config.data), section(LossOptions, config.loss, name="loss")
    fsdp, tensor = (field_of(make_mesh, config.mesh, field=name) for name in ("fsdp", "tensor"))
    if fsdp < 1 or tensor < 1:
        raise UserError("--scale needs numbers in config.mesh.fsdp and config.mesh.tensor; only replica may be -1")
    rows = config.data.batch_size * tensor / (topology.devices * loss.microbatch)
    if rows < 1:
        raise UserError(
            f"config.data.batch_size={config.data.batch_size} in {loss.microbatch} parts leaves no clip for each of "
            f"the {topology.devices} devices of --topology={topology.name}"
        )
    count = max(8, fsdp * tensor)
    few = changed(config, {"data.batch_size": count // tensor * loss.microbatch, "mesh.replica": -1})
    devices = topology_devices(Topology(name=f"cpu-{count}", chip=None, shape=(count,)))
    traced = trace(few, devices=devices)
    clips, params = few.data.batch_size, traced.state.params
    kind = topology.chip.kind if topology.chip else ""
    padding = count_flops(traced.stage.jaxpr, tile=matrix_tile(kind)).tile_padding
    split = sum(x.size * x.dtype.itemsize for x in params.values() if "fsdp" in _axes(x))
    whole = sum(x.size * x.dtype.itemsize for x in params.values()) - split
    fed = input_rate(config, hosts=1, step_s=None)
    frames = next((x.shape[1] for key, x in traced.batch.items() if key == "video"), 0)
    return Workload(
        split_bytes=split,
        whole_bytes=whole,
        state_bytes=checkpoint_bytes(traced.state),
        model_flops=traced.flops.model / clips,
        recomputed_flops=traced.flops.recomputed / clips,
        padding_flops=padding / clips,
        clip_bytes=fed["decoded_bytes_per_clip"],
        stored_bytes=fed["jpeg_bytes_per_clip"] + fed["sound_bytes_per_clip"],
        frames=frames,
        embed_dim=config.model.embed_dim,
        pairs=len(loss.weights()),
        passes=3 if loss.form == "dense" else _PASSES[loss.name],
        fsdp=fsdp,
        tensor=tensor,
        rows=int(rows),
        grad_cache=loss.grad_cache,
        compute_bytes=2 if config.model.video.get("dtype") == "bfloat16" else 4,
        form=loss.exchange if loss.form == "blockwise" else "dense",
        prefetch=data.feed.prefetch,
        checkpoint_every=section(TrainOptions, config.train, name="train").checkpoint_every,
    )


def table_of(result: Mapping[str, Any]) -> str:
    """Return the rows of `scale` as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=[field.name for field in dataclasses.fields(Row)] + ["efficiency"])
    writer.writeheader()
    writer.writerows(result["rows"])
    return stream.getvalue()


def _check(work: Workload, *, chip: Chip, chips: int, slices: int, batch: float, ways: float) -> None:
    """Raise UserError if mesh or batch do not fit a number of chips."""
    group, inside = work.fsdp * work.tensor, chips * chip.devices // slices
    if inside % group:
        raise UserError(
            f"{chips} chips: config.mesh.fsdp x tensor = {group} does not divide the {inside} devices that links join"
        )
    if batch < ways or batch % ways:
        raise UserError(f"{chips} chips: a batch of {batch:,.0f} does not divide by their {ways:,.0f} devices")


def _axes(array: jax.ShapeDtypeStruct) -> Sequence[str]:
    """Return the mesh axes that split an array."""
    spec: Any = array.sharding.spec  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    return [axis for entry in spec if entry is not None for axis in ((entry,) if isinstance(entry, str) else entry)]
