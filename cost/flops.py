"""FLOPs of a step, counted in its trace: exact for matrix products, loops multiplied, recomputation by itself.

The compiler's own count (`Compiled.cost_analysis`) takes a loop's body once and misses matrix products that a backend
hides in library calls. A trace has neither fault; of what the compiler removes it knows only equations whose results
nothing reads. It counts matrix products and convolutions only (2 FLOPs for each multiply-add), as model FLOPs are
counted by convention (PaLM, Chowdhery et al. 2022, appendix B).
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from .kernels import PRIMITIVE, grid_steps, model_share, real_share, up

RECOMPUTED = "rematted_computation"
"""The scope in which jax.checkpoint traces what is computed a second time."""

# cuDNN's attention as jax calls it: how many products of query and key size. Backward computes the scores once more.
_FLASH = {
    "dot_product_attention_fwd_wrapper": {"model": 2},
    "dot_product_attention_bwd_wrapper": {"model": 4, "recomputed": 1},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flops:
    """FLOPs of matrix products over all devices.

    Attributes:
      model: what the step needs without rematerialisation: forward and backward.
      recomputed: what is computed a second time: by rematerialisation, or in a flash kernel's backward pass; and what
        such a kernel computes on padding.
      tile_padding: what the matrix units compute on zeros, because products are narrower than the units.
      open_loops: loops whose number of rounds the trace does not say; their bodies are counted once.
    """

    model: float = 0.0
    recomputed: float = 0.0
    tile_padding: float = 0.0
    open_loops: int = 0

    @property
    def hardware(self) -> float:
        """What the devices really compute: model + recomputed."""
        return self.model + self.recomputed

    @property
    def on_tiles(self) -> float:
        """What the matrix units are busy with: `hardware` and padding."""
        return self.hardware + self.tile_padding

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(
            model=self.model + other.model,
            recomputed=self.recomputed + other.recomputed,
            tile_padding=self.tile_padding + other.tile_padding,
            open_loops=self.open_loops + other.open_loops,
        )

    def times(self, factor: float) -> "Flops":
        """Return the same, `factor` times over."""
        return Flops(
            model=factor * self.model,
            recomputed=factor * self.recomputed,
            tile_padding=factor * self.tile_padding,
            open_loops=self.open_loops,
        )


def count_flops(jaxpr: Any, *, tile: int = 1) -> Flops:
    """Count the FLOPs of a trace (`jax.jit(f).trace(...).jaxpr`, or any ClosedJaxpr), summed over all devices.

    A scan's body counts once for each of its rounds; of the branches of a conditional the dearest counts; the body of
    a `shard_map` counts once for each device of its manual axes, that of a Pallas kernel in each step of its grid.

    Args:
      jaxpr: the trace.
      tile: rows and columns of the device's matrix units (`chips.matrix_tile`), for `Flops.tile_padding`.
    """
    return _count(jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr, recomputed=False, real=1.0, tile=tile)


def _count(jaxpr: Any, *, recomputed: bool, real: float, tile: int) -> Flops:
    """Count a jaxpr; of what kernels in it compute, the share `real` is not on padding."""
    total = Flops()
    for eqn in live_equations(jaxpr):
        scope = str(eqn.source_info.name_stack)
        again, share = recomputed or RECOMPUTED in scope, real_share(scope) or real
        own = _in_kernel(eqn, real=share, tile=tile) if eqn.primitive.name == PRIMITIVE else _own(eqn, tile=tile)
        total += Flops(recomputed=own.hardware, tile_padding=own.tile_padding) if again else own
        if eqn.primitive.name == PRIMITIVE:
            continue
        inner = [_count(sub, recomputed=again, real=share, tile=tile) for sub in inner_jaxprs(eqn)]
        if not inner:
            continue
        if eqn.primitive.name == "cond":
            total += max(inner, key=lambda found: found.hardware)
            continue
        found = sum(inner, Flops()).times(rounds(eqn))
        if eqn.primitive.name == "while" and found.hardware:
            found = dataclasses.replace(found, open_loops=found.open_loops + 1)
        total += found
    return total


def _in_kernel(eqn: Any, *, real: float, tile: int) -> Flops:
    """FLOPs of all steps of a Pallas kernel's grid."""
    inside = eqn.params["jaxpr"]
    done = _count(inside, recomputed=False, real=1.0, tile=tile).times(grid_steps(eqn))
    if not done.hardware:
        return Flops()
    model = done.hardware * model_share(eqn, products=_products(inside)) * real
    return Flops(model=model, recomputed=done.hardware - model, tile_padding=done.tile_padding)


def _products(jaxpr: Any) -> int:
    """Return how many matrix products there are in a jaxpr and in those inside it."""
    own = sum(eqn.primitive.name == "dot_general" for eqn in jaxpr.eqns)
    return own + sum(_products(sub) for eqn in jaxpr.eqns for sub in inner_jaxprs(eqn))


def live_equations(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of a jaxpr but those without effects whose results nothing reads: they do not run.

    jax itself removes most of these, but no Pallas kernels.
    """
    read = {id(value) for eqn in jaxpr.eqns for value in eqn.invars} | {id(value) for value in jaxpr.outvars}
    for eqn in jaxpr.eqns:
        if eqn.effects or not eqn.outvars or any(id(value) in read for value in eqn.outvars):
            yield eqn


def inner_jaxprs(eqn: Any) -> Iterator[Any]:
    """Yield the jaxprs inside an equation (the body of a loop, the branches of a conditional, a called function)."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(item, "jaxpr") and hasattr(item.jaxpr, "eqns"):
                yield item.jaxpr


def rounds(eqn: Any) -> int:
    """Return how often the inner jaxprs of an equation run, over all devices (1 where the trace does not say)."""
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "shard_map":
        return manual_devices(eqn)
    return 1


def manual_devices(eqn: Any) -> int:
    """Return over how many devices a `shard_map` equation runs: those of its manual mesh axes."""
    mesh, manual = eqn.params["mesh"], eqn.params.get("manual_axes")
    shape = dict(mesh.shape)
    return math.prod(shape[axis] for axis in (manual if manual else shape))


def _own(eqn: Any, *, tile: int) -> Flops:
    """FLOPs of one matrix product, convolution or call of a flash attention kernel; none for all else."""
    if eqn.primitive.name == "dot_general":
        (contract, _), (batch, _) = eqn.params["dimension_numbers"]
        left, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
        depth, times = (math.prod(left[axis] for axis in axes) for axes in (contract, batch))
        rows = math.prod(left) // max(1, depth * times)
        model = 2.0 * math.prod(out) * depth
        columns = math.prod(out) // max(1, rows * times)
        return Flops(model=model, tile_padding=model * _padding(depth, rows=rows, columns=columns, tile=tile))
    if eqn.primitive.name == "ragged_dot":
        left, right = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
        return Flops(model=2.0 * math.prod(left) * right[-1])
    if eqn.primitive.name == "conv_general_dilated":
        kernel, out = eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
        spec = eqn.params["dimension_numbers"].rhs_spec  # (output features, input features of a group, window ...)
        return Flops(model=2.0 * math.prod(out) * math.prod(kernel) / kernel[spec[0]])
    if eqn.primitive.name in _FLASH:
        query, key = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape  # [B,L,K,d], [B,M,K,d]
        return Flops(**{kind: n * 2.0 * math.prod(query) * key[1] for kind, n in _FLASH[eqn.primitive.name].items()})
    return Flops()


def _padding(depth: int, *, rows: int, columns: int, tile: int) -> float:
    """Return the zeros with which a product [rows,depth] x [depth,columns] fills matrix units, as a share of itself.

    A unit holds tile x tile elements of one operand, past which the rows of the other flow: the better choice counts.
    """
    if not (depth and rows and columns):
        return 0.0
    deep, wide = up(depth, tile) / depth, min(up(columns, tile) / columns, up(rows, tile) / rows)
    return deep * wide - 1.0
