"""Where a chip's memory goes: parameters, optimizer, batch, activations, temporaries, program."""

import dataclasses
import math
from typing import Any

import jax

from .flops import RECOMPUTED, inner_jaxprs, manual_devices

_ELEMENTWISE = frozenset(
    ("add", "add_any", "and", "broadcast_in_dim", "convert_element_type", "copy", "cos", "div", "eq", "erf", "exp",
     "expand_dims", "ge", "gt", "integer_pow", "iota", "is_finite", "le", "log", "logistic", "lt", "max", "min", "mul",
     "name", "ne", "neg", "not", "or", "pow", "reshape", "rsqrt", "select_n", "sign", "sin", "sqrt", "square",
     "squeeze", "stop_gradient", "sub", "tanh", "transpose")
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device while a step runs.

    Attributes:
      parameters: trained and frozen.
      optimizer: its state, and the moving average of the parameters where there is one.
      batch: the arrays of a batch.
      activations: of the temporaries, what forward keeps for backward; an estimate from the trace (see
        `kept_activations`), never more than all temporaries.
      temporaries: the rest of what the compiler reserves.
      program: its code.
      other: results that do not share memory with arguments, and padding.
      total: the sum of these.
    """

    parameters: int
    optimizer: int
    batch: int
    activations: int
    temporaries: int
    program: int
    other: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))


def device_bytes(tree: Any) -> int:
    """Return how many bytes of a tree of arrays (or shapes with shardings) lie on one device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def whole_bytes(tree: Any) -> int:
    """Return how many bytes a tree of arrays holds in all, each counted once."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def step_memory(compiled: jax.stages.Compiled, *, state: Any, batch: Any, kept: float = 0.0) -> Memory | None:
    """Divide the memory of a compiled step by kind; None where the backend has no memory analysis.

    Args:
      compiled: from `engine.step.step.lower_step(...).compile()`.
      state: its TrainState, of arrays or of shapes with shardings.
      batch: its batch, likewise.
      kept: bytes on one device that forward keeps for backward, from `kept_activations`.
    """
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    parameters, optimizer = device_bytes((state.params, state.others)), device_bytes((state.opt_state, state.ema))
    rows = device_bytes(batch)
    unshared = max(0, sizes.output_size_in_bytes - sizes.alias_size_in_bytes)
    padding = max(0, sizes.argument_size_in_bytes - parameters - optimizer - rows)
    activations = min(int(kept), sizes.temp_size_in_bytes)
    return Memory(
        parameters=parameters,
        optimizer=optimizer,
        batch=rows,
        activations=activations,
        temporaries=sizes.temp_size_in_bytes - activations,
        program=sizes.generated_code_size_in_bytes,
        other=unshared + padding,
    )


def kept_activations(jaxpr: Any, *, rows: int, ways: int) -> float:
    """Estimate the bytes on one device that the forward pass keeps for the backward pass.

    What equations outside `transpose(jvp())` make and equations inside it read, at each level of the trace; of several
    loops or calls, which run one after another, the largest counts; what is computed a second time is a forward pass
    of its own. For what was computed element by element its
    sources count instead: the compiler computes it again rather than keep it. The trace knows no shardings: an array
    one of whose dimensions is a multiple of the batch is taken to be split over the devices of the batch, all else to
    be whole on each.

    Args:
      jaxpr: `jax.jit(step).trace(...).jaxpr`.
      rows: clips of the global batch; for a microbatched step those of one part.
      ways: devices over which the batch is split.
    """
    return _kept(jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr, rows=rows, ways=ways, backward=False)


def _kept(jaxpr: Any, *, rows: int, ways: int, backward: bool) -> float:
    makers: dict[Any, Any] = {}  # value of the forward pass -> the equation that makes it
    kept: set[Any] = set()
    inside = 0.0
    for eqn in jaxpr.eqns:
        scope = str(eqn.source_info.name_stack)
        later = (backward or "transpose" in scope) and RECOMPUTED not in scope
        for value in eqn.invars:
            if later and not hasattr(value, "val") and value in makers:  # literals have a val
                kept |= _sources(value, makers=makers)
        if not later:
            makers |= dict.fromkeys(eqn.outvars, eqn)
        local = manual_devices(eqn) if eqn.primitive.name == "shard_map" else 1
        for sub in inner_jaxprs(eqn):
            inner_rows, inner_ways = (max(1, rows // local), 1) if local > 1 else (rows, ways)
            inside = max(inside, _kept(sub, rows=inner_rows, ways=inner_ways, backward=later))
    return sum(_bytes(value.aval, rows=rows, ways=ways) for value in kept) + inside


def _sources(value: Any, *, makers: dict[Any, Any]) -> set[Any]:
    """Return the values from which `value` is computed element by element; itself if it is computed otherwise."""
    found, seen, open_values = set(), set(), [value]
    while open_values:
        one = open_values.pop()
        if hasattr(one, "val") or one in seen or one not in makers:  # an argument is there anyway
            continue
        seen.add(one)
        if makers[one].primitive.name in _ELEMENTWISE:
            open_values += makers[one].invars
        else:
            found.add(one)
    return found


def _bytes(aval: Any, *, rows: int, ways: int) -> float:
    if not hasattr(aval, "shape") or not hasattr(aval.dtype, "itemsize"):
        return 0.0
    split = any(dim and dim % rows == 0 for dim in aval.shape)
    return math.prod(aval.shape) * aval.dtype.itemsize / (ways if split else 1)
