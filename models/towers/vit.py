"""The image tower: a vision transformer on single pictures, in the forms of CLIP, SigLIP, DINOv2 and PE-core."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from ...base.errors import UserError, unknown
from ..layers.attention import EVERYTHING, AttentionInputs
from ..layers.blocks import Blocks
from ..layers.capture import are_pixels
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys, kept_tokens
from ..layers.names import named
from ..layers.options import BlockOptions, block_options
from ..layers.patch_sequences import read_sequences, sequence_positions
from ..layers.patch_stem import ConvPatchEmbedding
from ..layers.patches import PatchEmbedding
from ..layers.pooling import AttentionPool, masked_mean
from ..layers.positions import RESIZE_METHODS, position_embedding, resize_positions, resize_square, rotary_angles

IMAGE_POOLS = ("cls", "mean", "cls_mean", "attention")
"""How the tokens of a picture become one."""
POSITIONS = ("learned", "none")

Images = UInt8[Array, "B H W C"]
"""Pictures, RGB, 0..255."""


class ImageTokens(NamedTuple):
    """What `ImageTower.tokens` gives.

    Attributes:
      patches: `[B,N,D]` after the last norm, row by row of the picture.
      leading: `[B,M,D]`, the class token and the registers.
      kept: int32 `[B,N]`, places of the patches that patch dropout kept; None = all.
      mask: bool `[B,N]`, True = a real patch; None = all are.
    """

    patches: Float[Array, "B N D"]
    leading: Float[Array, "B M D"]
    kept: Int[Array, "B N"] | None
    mask: Bool[Array, "B N"] | None = None


class ImageTower(nnx.Module):
    """Vision transformer (ViT, Dosovitskiy et al. 2021) for pictures of any size that `patch` divides.

    Learned positions belong to a grid of `image_size / patch` patches per side and are interpolated to other grids.
    The class token carries its own position.

    Args:
      image_size: side of the pictures for whose grid the positions are, pixels.
      patch: patch side P, pixels; divides `image_size`.
      patch_bias: the embedding of patches has a bias (CLIP has none).
      patch_stem: widths of two convolutions before that embedding, each with BatchNorm and GELU: on patches of 4 x 4
        pixels, then on 2 x 2 of those (MobileCLIP-B); () = none. `patch` is then 16.
      width: D.
      depth: blocks.
      heads: attention heads K.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      class_token: a learned token stands before the patches.
      registers: further learned tokens between it and the patches (Darcet et al. 2024).
      pre_norm: a norm precedes the blocks (CLIP, Radford et al. 2021).
      position: "learned" or "none".
      position_method: how learned positions are interpolated, one of `layers.positions.RESIZE_METHODS`.
      position_antialias: that interpolation has an antialiasing filter where it shrinks.
      position_align_corners: it maps the outermost positions to the outermost ones (big_vision).
      naflex: pictures P pixels wide are sequences of patches with their grid, so that a batch may hold several aspect
        ratios (see `layers.patch_sequences`); positions are bilinear with antialiasing (SigLIP 2, Tschannen et al.
        2025).
      rotary_start: row and column of the first patch for rotary positions along both axes, which `block` turns on
        (`{"rotary": "interleaved"}`); leading tokens stand at 0. PE-core counts from 1.
      rotary_rows_first: the first half of the pairs of channels turns with the row, the second with the column (EVA-02)
        instead of the other way round.
      rotary_side: patches per side to which rotary places are scaled (EVA-02 was pretrained with 16); None = they are
        counted.
      pool: "cls", the class token; "mean" of the patches; "cls_mean", the class token beside that mean, 2 D (DINOv2's
        probes, Oquab et al. 2024); "attention", a learned query with an MLP (SigLIP's MAP head, Zhai et al. 2022).
      pool_heads: attention heads of that query; None = `heads`.
      pool_mlp_ratio: hidden width of its MLP / D; None = as in the blocks.
      projection: width E of a linear map after the pool; None = there is none.
      projection_bias: that map has a bias.
      dropout: rate on the residual branches.
      patch_dropout: share of the patches that the blocks do not see in training (FLIP, Li et al. 2023).
      block: further fields of `layers.options.BlockOptions`.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels.
      pixel_std: of R, G and B; divides them.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not divide, a value out of its range, or an unknown name.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch: int = 16,
        patch_bias: bool = True,
        patch_stem: Sequence[int] = (),
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        class_token: bool = False,
        registers: int = 0,
        pre_norm: bool = False,
        position: str = "learned",
        position_method: str = "bicubic",
        position_antialias: bool = False,
        position_align_corners: bool = False,
        naflex: bool = False,
        rotary_start: int = 0,
        rotary_rows_first: bool = False,
        rotary_side: int | None = None,
        pool: str = "mean",
        pool_heads: int | None = None,
        pool_mlp_ratio: float | None = None,
        projection: int | None = None,
        projection_bias: bool = False,
        dropout: float = 0.0,
        patch_dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        _check(image_size=image_size, patch=patch, pool=pool, class_token=class_token, patch_dropout=patch_dropout)
        kind = {"method": position_method, "antialias": position_antialias, "align_corners": position_align_corners}
        _check_position(position, **kind)
        if naflex:
            fixed = {"patch_stem": patch_stem, "patch_dropout": patch_dropout}
            _check_naflex(position=position, rotary=(block or {}).get("rotary", "none"), **fixed, **kind)
        self.naflex = naflex
        self.patch, self.side, self.patch_dropout = patch, image_size // patch, patch_dropout
        self.position_resizing = tuple(kind.items())  # hashable, as attributes of modules must be
        self.rotary_start, self.rotary_rows_first, self.rotary_side = rotary_start, rotary_rows_first, rotary_side
        self.pool, self.dtype = pool, compute_dtype(dtype)
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        self.options = block_options(block, tower="video", causal=False, cross_width=None, **own)
        pixels = {"pixel_mean": pixel_mean, "pixel_std": pixel_std, "bias": patch_bias}
        if patch_stem:
            self.embed = ConvPatchEmbedding(patch_stem, patch=patch, width=width, **pixels, dtype=self.dtype, rngs=rngs)
        else:
            patches = {"patch": patch, "tubelet": 1, "stem": 0, "width": width, "activation": activation}
            self.embed = PatchEmbedding(**patches, **pixels, dtype=self.dtype, rngs=rngs)
        self.class_token = _token(1, width=width, rngs=rngs) if class_token else None
        self.registers = _token(registers, width=width, rngs=rngs) if registers else None
        self.space_position = position_embedding(self.side, self.side, width=width) if position == "learned" else None
        self.pre_norm = self.options.make_norm(rngs=rngs) if pre_norm else None
        self.blocks = Blocks(self.options, depth=depth, rngs=rngs)
        self.pooler = (
            _pooler(self.options, heads=pool_heads, mlp_ratio=pool_mlp_ratio, rngs=rngs)
            if pool == "attention"
            else None
        )
        self.tokens_width = width
        width *= 2 if pool == "cls_mean" else 1
        self.projection = (
            linear(width, projection, dtype=jnp.float32, bias=projection_bias, rngs=rngs) if projection else None
        )
        self.width = projection or width

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        inputs = ("embed", "class_token", "registers", "space_position", "pre_norm")
        return (*inputs, "blocks/layers", "blocks/norm", "pooler", "projection")

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions of another picture size to those of this tower."""
        resize = functools.partial(resize_square, side=self.side, **dict(self.position_resizing))
        return {"space_position": resize}

    def tokens(
        self,
        images: Images,
        *,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
        kept: Int[Array, "B n"] | None = None,
    ) -> ImageTokens:
        """Encode the patches of pictures, uint8 RGB 0..255.

        Args:
          images: pictures whose sides `patch` divides.
          keys: one key for each picture; turns dropout and patch dropout on.
          drop_patches: False turns patch dropout off all the same (unmasked tuning).
          kept: places of the patches to encode; None = as patch dropout draws them.

        Raises:
          UserError: pictures of another dtype, or sides that do not divide.
        """
        if self.naflex and images.shape[2] == self.patch and images.shape[1] > self.patch:
            return self._sequences(images, keys=keys)
        rows, columns = self._grid(images)
        x = self.embed(images[:, None])[:, 0].astype(jnp.float32)  # [B,N,D]
        if self.space_position is not None:
            x = x + self._positions(rows, columns)[None]
        angles = self._angles(rows, columns)
        if kept is None and keys is not None and drop_patches and self.patch_dropout:
            kept = kept_tokens(keys, tokens=x.shape[1], rate=self.patch_dropout)
        if kept is not None:
            x = jnp.take_along_axis(x, kept[:, :, None], axis=1)
            angles = None if angles is None else jnp.take(angles, kept, axis=0)  # [B,N,half]
        leading = [token[...] for token in (self.class_token, self.registers) if token is not None]
        count = sum(token.shape[0] for token in leading)
        x = jnp.concatenate([*(jnp.broadcast_to(t[None], (x.shape[0], *t.shape)) for t in leading), x], axis=1)
        x = named(x.astype(self.dtype), "activation/video/tokens")
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        x = self.blocks(x, inputs=_turned(angles, leading=count), keys=keys)
        return ImageTokens(patches=x[:, count:], leading=x[:, :count], kept=kept)

    def _sequences(self, images: Images, *, keys: RowKeys | None) -> ImageTokens:
        """Encode pictures that are sequences of patches; each sees its own real patches alone."""
        check_pictures(images)
        found = read_sequences(images, patch=self.patch)
        x = self.embed(found.images[:, None])[:, 0].astype(jnp.float32)  # [B,N,D]
        assert self.space_position is not None
        grids = {"rows": found.rows, "columns": found.columns, "count": x.shape[1]}
        x = x + sequence_positions(self.space_position[...], side=self.side, **grids)
        leading = [token[...] for token in (self.class_token, self.registers) if token is not None]
        count = sum(token.shape[0] for token in leading)
        x = jnp.concatenate([*(jnp.broadcast_to(t[None], (x.shape[0], *t.shape)) for t in leading), x], axis=1)
        x = named(x.astype(self.dtype), "activation/video/tokens")
        x = x if self.pre_norm is None else self.pre_norm(x)
        x = self.blocks(x, mask=jnp.pad(found.mask, ((0, 0), (count, 0)), constant_values=True), keys=keys)
        return ImageTokens(patches=x[:, count:], leading=x[:, :count], kept=None, mask=found.mask)

    def pooled(self, tokens: ImageTokens) -> Float[Array, "B D"]:
        """Return the vector of each picture from its tokens, float32."""
        first = [tokens.leading[:, 0].astype(jnp.float32)] if self.pool in ("cls", "cls_mean") else []
        mean = [masked_mean(tokens.patches, mask=tokens.mask)] if self.pool in ("mean", "cls_mean") else []
        if self.pooler is None:
            x = jnp.concatenate([*first, *mean], axis=-1)
        else:
            mask = tokens.mask
            if mask is not None:
                mask = jnp.pad(mask, ((0, 0), (tokens.leading.shape[1], 0)), constant_values=True)
            both = jnp.concatenate([tokens.leading, tokens.patches], axis=1)
            x = self.pooler(both, mask=mask)[:, 0].astype(jnp.float32)
        return x if self.projection is None else self.projection(x)

    def __call__(
        self, images: Images, *, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> Float[Array, "B D"]:
        """Encode pictures, uint8 RGB 0..255, into float32 vectors."""
        return self.pooled(self.tokens(images, keys=keys, drop_patches=drop_patches))

    def _grid(self, images: Images) -> tuple[int, int]:
        check_pictures(images)
        height, width = images.shape[1:3]
        if height % self.patch or width % self.patch:
            raise UserError(
                f"pictures of {height} x {width} pixels, the tower wants sides that patch={self.patch} divides; "
                "change the crop in config.data.*_video"
            )
        return height // self.patch, width // self.patch

    def _positions(self, rows: int, columns: int) -> Float[Array, "N D"]:
        assert self.space_position is not None
        return resize_positions(
            self.space_position[...],
            old=(self.side, self.side),
            new=(rows, columns),
            **dict(self.position_resizing),
        )

    def _angles(self, rows: int, columns: int) -> Float[Array, "N half"] | None:
        if self.options.rotary == "none":
            return None
        row, column = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
        if self.rotary_side is not None:
            row, column = (
                axis.astype(jnp.float32) * (self.rotary_side / count)
                for axis, count in ((row, rows), (column, columns))
            )
        axes = (row, column) if self.rotary_rows_first else (column, row)
        places = [rearrange(axis, "h w -> (h w)") + self.rotary_start for axis in axes]
        return rotary_angles(*places, width=self.options.head_size, base=self.options.rotary_base)


def check_pictures(images: Images) -> None:
    """Raise UserError for pictures of another dtype than uint8."""
    if not are_pixels(images.dtype):
        raise UserError(f"pictures of dtype {images.dtype}, the tower wants uint8 pixels 0..255")


def _turned(angles: Float[Array, "*B N half"] | None, *, leading: int) -> AttentionInputs:
    """Rotary positions of all tokens: leading ones are not turned."""
    if angles is None:
        return EVERYTHING
    return AttentionInputs(angles=jnp.pad(angles, [(0, 0)] * (angles.ndim - 2) + [(leading, 0), (0, 0)]))


def _token(count: int, *, width: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), (count, width), jnp.float32))


def _pooler(options: BlockOptions, *, heads: int | None, mlp_ratio: float | None, rngs: nnx.Rngs) -> AttentionPool:
    own = options.with_heads(heads or options.heads)
    if mlp_ratio is not None:
        own = dataclasses.replace(own, mlp_ratio=mlp_ratio, mlp_hidden=None)
    return AttentionPool(own, mlp=True, rngs=rngs)


def _check(*, image_size: int, patch: int, pool: str, class_token: bool, patch_dropout: float) -> None:
    if image_size % patch:
        raise UserError(f"config.model.video.image_size={image_size} must be a multiple of patch={patch}")
    if pool not in IMAGE_POOLS:
        raise unknown("config.model.video.pool", pool, IMAGE_POOLS)
    if pool in ("cls", "cls_mean") and not class_token:
        raise UserError(f"config.model.video.pool={pool!r} needs class_token=True")
    if not 0 <= patch_dropout < 1:
        raise UserError(f"config.model.video.patch_dropout must be at least 0 and below 1, got {patch_dropout}")


def _check_naflex(*, patch_dropout: float, align_corners: bool, **options: Any) -> None:
    del align_corners  # excluded by antialias
    wanted = {"position": "learned", "rotary": "none", "patch_stem": (), "method": "bilinear", "antialias": True}
    if (options | {"patch_stem": tuple(options["patch_stem"])}) != wanted:
        raise UserError(
            "config.model.video.naflex=True needs position='learned', position_method='bilinear' and "
            "position_antialias=True, and neither a patch_stem nor rotary positions"
        )
    if patch_dropout:
        raise UserError(
            f"config.model.video.patch_dropout={patch_dropout} cannot drop patches of naflex=True; set it to 0"
        )


def _check_position(position: str, *, method: str, antialias: bool, align_corners: bool) -> None:
    if position not in POSITIONS:
        raise unknown("config.model.video.position", position, POSITIONS)
    if method not in RESIZE_METHODS:
        raise unknown("config.model.video.position_method", method, RESIZE_METHODS)
    if antialias and (align_corners or method == "nearest"):
        raise UserError(
            "config.model.video.position_antialias=True needs position_method 'bilinear' or 'bicubic', and "
            f"position_align_corners=False; got {method!r} and {align_corners}"
        )
