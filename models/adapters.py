"""Parameters that an adaptation adds to the towers of a pretrained model, and where they may be added.

Every kind changes a tower that was built: LoRA and DoRA its matrices, adapters its blocks, prompts its stacks of
blocks. The added parameters lie inside of the layers that they change, stacked like them, so that loops over layers,
sharding, rematerialisation, layer-wise rates and checkpoints treat them like any other parameter.
"""

import dataclasses
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..base.errors import UserError
from .layers.activations import ACTIVATIONS
from .layers.blocks import Adapters, Block, Blocks, stacked
from .layers.dense import Dense
from .layers.lora import Lora, column_norms

ADDED = re.compile(r"(?:^|/)(?:lora|adapters)/|(?:^|/)prompts$")
"""Found in the paths of added parameters, and in no others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Low-rank updates, see `layers.lora.Lora`; the same fields for DoRA.

    Attributes:
      layers: paths of the dense layers inside of the tower.
      rank: inner width of an update.
      alpha: an update is multiplied by `alpha / rank`.
      dropout: rate on the input of an update in training.
    """

    layers: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self):
        _check(self, at_least_one=("rank",), rates=("dropout",))
        if not self.alpha > 0:
            raise UserError(f"config.adapt: alpha must be above 0, got {self.alpha}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Bottlenecks behind the branches of blocks, see `layers.bottleneck.Bottleneck`.

    Attributes:
      layers: paths of the blocks inside of the tower.
      width: of the bottleneck.
      activation: a name of `layers.activations.ACTIVATIONS`.
    """

    layers: tuple[str, ...]
    width: int = 64
    activation: str = "gelu"

    def __post_init__(self):
        _check(self, at_least_one=("width",))
        if self.activation not in ACTIVATIONS:
            raise UserError(
                f"config.adapt.adapters.activation={self.activation!r} is none of {', '.join(ACTIVATIONS)}; choose one"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """Learned tokens before those of the input, see `layers.blocks.Blocks`.

    Attributes:
      layers: paths of the stacks of blocks inside of the tower.
      count: how many tokens P.
      deep: every block has its own; False = they stand before the first block alone.
    """

    layers: tuple[str, ...]
    count: int = 8
    deep: bool = True

    def __post_init__(self):
        _check(self, at_least_one=("count",))


Options = LoraOptions | AdapterOptions | PromptOptions


def _check(options: Any, *, at_least_one: Sequence[str] = (), rates: Sequence[str] = ()) -> None:
    for field in at_least_one:
        if getattr(options, field) < 1:
            raise UserError(f"config.adapt: {field} must be at least 1, got {getattr(options, field)}")
    for field in rates:
        if not 0 <= getattr(options, field) < 1:
            raise UserError(f"config.adapt: {field} must be at least 0 and below 1, got {getattr(options, field)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of adaptation that adds parameters.

    Attributes:
      options: class of its options.
      places: what it changes, in words.
      fits: whether a module can be changed.
      add: changes one.
      everywhere: regex of the places that are changed unless the config names others.
      merges: whether the added parameters can become part of the others.
    """

    options: type
    places: str
    fits: Callable[[Any], bool]
    add: Callable[..., None]
    everywhere: str
    merges: bool = False


def _add_lora(layer: Dense, *, options: LoraOptions, path: str, rngs: nnx.Rngs, magnitude: bool = False) -> None:
    if layer.lora is not None:
        raise UserError(f"config.adapt: the layer {path!r} would have both lora and dora; give each its own `layers`")
    number = zlib.crc32(path.encode()) >> 1
    how = {"rank": options.rank, "alpha": options.alpha, "dropout": options.dropout}
    layer.lora = Lora(layer.kernel[...], **how, magnitude=magnitude, number=number, rngs=rngs)


def _add_dora(layer: Dense, *, options: LoraOptions, path: str, rngs: nnx.Rngs) -> None:
    _add_lora(layer, options=options, path=path, rngs=rngs, magnitude=True)


def _add_adapters(block: Block, *, options: AdapterOptions, path: str, rngs: nnx.Rngs) -> None:
    del path
    depth = block.attention.out.kernel.shape[:-2]  # () of a block that stands alone

    def make(rngs: nnx.Rngs) -> Adapters:
        return Adapters(block.options, inner=options.width, activation=options.activation, rngs=rngs)

    block.adapters = stacked(make, depth=depth[0], rngs=rngs) if depth else make(rngs)


def _add_prompts(stack: Blocks, *, options: PromptOptions, path: str, rngs: nnx.Rngs) -> None:
    del path
    shape = (options.count, stack.options.width)
    if options.deep:
        stack.layers.prompts = _normal(stack.depth, *shape, rngs=rngs)
    else:
        stack.prompts = _normal(*shape, rngs=rngs)


def _normal(*shape: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, jnp.float32))


KINDS: dict[str, Kind] = {
    "lora": Kind(
        options=LoraOptions,
        places="dense layers",
        fits=lambda module: isinstance(module, Dense),
        add=_add_lora,
        everywhere="attention/",
        merges=True,
    ),
    "dora": Kind(
        options=LoraOptions,
        places="dense layers",
        fits=lambda module: isinstance(module, Dense),
        add=_add_dora,
        everywhere="attention/",
        merges=True,
    ),
    "adapters": Kind(
        options=AdapterOptions,
        places="transformer blocks",
        fits=lambda module: isinstance(module, Block),
        add=_add_adapters,
        everywhere="",
    ),
    "prompts": Kind(
        options=PromptOptions,
        places="stacks of transformer blocks",
        fits=lambda module: isinstance(module, Blocks) and type(module.layers) is Block,
        add=_add_prompts,
        everywhere="",
    ),
}
"""Name in `config.adapt`, and in a spec, -> what is added."""


def places(tower: nnx.Module, *, kind: str) -> list[str]:
    """Return the "/"-joined paths inside of a tower that a kind can change, sorted."""
    found = ("/".join(map(str, path)) for path, module in nnx.iter_modules(tower) if KINDS[kind].fits(module))
    return sorted(path for path in found if not ADDED.search(f"{path}/"))  # what was added is not changed again


def add(tower: nnx.Module, *, kinds: Mapping[str, Options], rngs: nnx.Rngs) -> None:
    """Add parameters to a tower, in place.

    Args:
      tower: of arrays or of shapes, without parameters of these kinds.
      kinds: name of `KINDS` -> its options.
      rngs: source of the initial values.

    Raises:
      UserError: a path that no such layer has, or a layer with two updates, or dropout where nothing random is drawn.
    """
    modules = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(tower)}
    for name, options in kinds.items():
        kind = KINDS[name]
        for path in options.layers:
            if path not in modules or not kind.fits(modules[path]):
                listed = "\n  ".join(places(tower, kind=name)) or "(none)"
                raise UserError(f"{name}: the tower has no {kind.places} at {path!r}. It has:\n  {listed}")
        if getattr(options, "dropout", 0):
            _check_draws(modules, paths=options.layers, name=name)
        for path in options.layers:
            kind.add(modules[path], options=options, path=path, rngs=rngs)


def _check_draws(modules: Mapping[str, Any], *, paths: Sequence[str], name: str) -> None:
    """Raise UserError for a layer outside of blocks, which know no keys of rows."""
    blocks = tuple(f"{path}/" for path, module in modules.items() if isinstance(module, Block))
    outside = [path for path in paths if not path.startswith(blocks)]
    if outside:
        raise UserError(
            f"config.adapt.{name}.dropout acts inside of transformer blocks alone, but `layers` has "
            f"{', '.join(map(repr, outside))}; set dropout to 0, or leave these out"
        )


def set_magnitudes(model: nnx.Module, *, chosen: Callable[[str], bool] = lambda path: True) -> None:
    """Set the magnitudes of DoRA to the norms of the columns of their kernels, in place: after a checkpoint was read.

    Args:
      model: of arrays.
      chosen: tells by the path of a magnitude whether it is set.
    """
    for path, module in nnx.iter_modules(model):
        module: Any = module
        magnitude = module.lora.magnitude if isinstance(module, Dense) and module.lora is not None else None
        if magnitude is not None and chosen("/".join(map(str, (*path, "lora", "magnitude")))):
            made = column_norms(module.kernel[...])
            magnitude.set_value(jax.device_put(made, magnitude.get_value().sharding))
