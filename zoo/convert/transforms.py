"""How tensors of public models become parameters of ours, and back; NumPy arrays.

Our dense kernels are `[in, out]`, PyTorch's `[out, in]`. Columns of our fused `qkv` lie head by head (query, key, value
of head 0, then of head 1 ...); those of PyTorch's `in_proj_weight` and timm's `qkv` lie query by query, then keys, then
values, each head by head.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from einops import rearrange


@dataclasses.dataclass(frozen=True)
class Transform:
    """A map from tensors to parameters: one to one, several to one, or several to several.

    Attributes:
      forward: tensors -> a parameter, or a tuple of them. ValueError for shapes that it cannot take.
      backward: the parameters -> a tuple of the tensors.
    """

    forward: Callable[..., np.ndarray | tuple[np.ndarray, ...]]
    backward: Callable[..., tuple[np.ndarray, ...]]


SAME = Transform(lambda x: x, lambda x: (x,))
"""As it is."""
TRANSPOSED = Transform(lambda x: _of_rank(x, 2).T, lambda x: (x.T,))
"""The weight of PyTorch's Linear `[out, in]` as a kernel `[in, out]`."""


def reshaped(*, tensor: Sequence[int], parameter: Sequence[int]) -> Transform:
    """Another shape with the same order of elements.

    Args:
      tensor: shape of the tensor; at most one -1.
      parameter: shape of our parameter; at most one -1.
    """
    return Transform(lambda x: _as(x, tensor).reshape(parameter), lambda x: (x.reshape(tensor),))


def rearranged(tensor: str, parameter: str, **sizes: int) -> Transform:
    """Move axes as `einops.rearrange` does, from the pattern of the tensor to that of our parameter."""
    return Transform(
        lambda x: rearrange(x, f"{tensor} -> {parameter}", **sizes),
        lambda x: (rearrange(x, f"{parameter} -> {tensor}", **sizes),),
    )


def conv_patches(*, patch: int, tubelet: int = 0) -> Transform:
    """The kernel of a convolution over patches as that of `PatchEmbedding`: rows are (frame, row, column, colour).

    Args:
      patch: side P.
      tubelet: frames of a 3-D kernel `[D, 3, tubelet, P, P]`; 0 = a 2-D kernel `[D, 3, P, P]`.
    """
    if tubelet:
        return rearranged("d c u p q", "(u p q c) d", c=3, u=tubelet, p=patch, q=patch)
    return rearranged("d c p q", "(p q c) d", c=3, p=patch, q=patch)


def fused_kernel(*, heads: int) -> Transform:
    """`in_proj_weight` `[3D, D]` as our `qkv` kernel."""
    return rearranged("(three k d) i", "i (k three d)", three=3, k=heads)


def fused_bias(*, heads: int) -> Transform:
    """`in_proj_bias` `[3D]` as our `qkv` bias."""
    return rearranged("(three k d)", "(k three d)", three=3, k=heads)


def separate_kernels(*, heads: int) -> Transform:
    """The weights `[D, D]` of three Linears (query, key, value) as our `qkv` kernel."""
    return _split_in_three(fused_kernel(heads=heads))


def separate_biases(*, heads: int) -> Transform:
    """The biases `[D]` of three Linears (query, key, value) as our `qkv` bias."""
    return _split_in_three(fused_bias(heads=heads))


def grouped_kernels(*, heads: int, groups: int) -> Transform:
    """The weights of query `[K d, D]`, key and value `[G d, D]` of grouped-query attention as our `qkv` kernel."""
    share = heads // groups

    def forward(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        rows = [rearrange(x, "(g r d) i -> g r d i", g=groups, r=r) for x, r in ((query, share), (key, 1), (value, 1))]
        return rearrange(np.concatenate(rows, axis=1), "g r d i -> i (g r d)")

    def backward(kernel: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = rearrange(kernel, "i (g r d) -> g r d i", g=groups, r=share + 2)
        return tuple(rearrange(x, "g r d i -> (g r d) i") for x in np.split(rows, [share, share + 1], axis=1))

    return Transform(forward, backward)


def headed_kernels(*, heads: int) -> Transform:
    """The kernels `[D, K, d]` of query, key and value (Praxis, flax's DenseGeneral) as our `qkv` kernel."""
    return Transform(
        lambda *x: rearrange(np.stack(x), "three i k d -> i (k three d)", three=3, k=heads),
        lambda x: tuple(rearrange(x, "i (k three d) -> three i k d", three=3, k=heads)),
    )


def headed_biases(*, heads: int) -> Transform:
    """The biases `[K, d]` of query, key and value (Praxis, flax's DenseGeneral) as our `qkv` bias."""
    return Transform(
        lambda *x: rearrange(np.stack(x), "three k d -> (k three d)", three=3, k=heads),
        lambda x: tuple(rearrange(x, "(k three d) -> three k d", three=3, k=heads)),
    )


def query_value_biases(*, heads: int) -> Transform:
    """The biases `[D]` of queries and values as our `qkv` bias; that of keys is 0, and changes no attention anyway."""
    fused = fused_bias(heads=heads)

    def backward(x: np.ndarray) -> tuple[np.ndarray, ...]:
        query, _, value = np.split(fused.backward(x)[0], 3)
        return query, value

    return Transform(lambda q, v: fused.forward(np.concatenate([q, np.zeros_like(q), v])), backward)


def kernels_of(parts: int) -> Transform:
    """The weight `[parts * out, in]` of one Linear that holds several, as that many kernels `[in, out]`."""
    return Transform(
        lambda x: tuple(piece.T for piece in np.split(_of_rank(x, 2), parts)),
        lambda *kernels: (np.concatenate([kernel.T for kernel in kernels]),),
    )


def biases_of(parts: int) -> Transform:
    """The bias `[parts * out]` of one Linear that holds several, as that many biases."""
    return Transform(lambda x: tuple(np.split(_of_rank(x, 1), parts)), lambda *biases: (np.concatenate(biases),))


def class_token_and_positions(*, batched: bool = False) -> Transform:
    """A class embedding `[D]` and positions `[1 + N, D]` as class token and positions of patches.

    Our class token holds the sum of its embedding and its position. On the way back that position is 0.

    Args:
      batched: the tensors are `[1, 1, D]` and `[1, 1 + N, D]`.
    """

    def forward(token: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positions = positions.reshape(positions.shape[-2:])
        return token.reshape(1, -1) + positions[:1], positions[1:]

    def backward(token: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positions = np.concatenate([np.zeros_like(token), positions])
        return (token[None], positions[None]) if batched else (token[0], positions)

    return Transform(forward, backward)


def through(function: Callable[[np.ndarray], Any], inverse: Callable[[np.ndarray], Any]) -> Transform:
    """Apply a function to each element, such as the logarithm of a temperature; its inverse on the way back."""
    return Transform(lambda x: np.asarray(function(x), x.dtype), lambda x: (np.asarray(inverse(x), x.dtype),))


def constant(value: float) -> Transform:
    """A scalar parameter that the file does not hold; no tensor on the way back. For rules without sources."""
    return Transform(lambda: np.asarray(value, np.float32), lambda _: ())


def temperature() -> Transform:
    """A temperature as the logarithm of the factor on cosines, `log_scale = -log(temperature)`."""

    def forward(x: np.ndarray) -> np.ndarray:
        if not x > 0:
            raise ValueError(f"a temperature is above 0, got {x}")
        return np.asarray(-np.log(x), x.dtype)

    return Transform(forward, lambda x: (np.asarray(np.exp(-x), x.dtype),))


def each_layer(transform: Transform) -> Transform:
    """Apply a transform to each slice of the first axis: tensors that hold all layers in one (scanned stacks)."""

    def forward(*x: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        return stacked([transform.forward(*parts) for parts in zip(*x, strict=True)])

    def backward(*x: np.ndarray) -> tuple[np.ndarray, ...]:
        parts = [transform.backward(*layer) for layer in zip(*x, strict=True)]
        return tuple(np.stack(tensors) for tensors in zip(*parts, strict=True))

    return Transform(forward, backward)


def stacked(layers: Sequence[np.ndarray | tuple[np.ndarray, ...]]) -> np.ndarray | tuple[np.ndarray, ...]:
    """Stack what `forward` gave for each layer along a new first axis."""
    if isinstance(layers[0], tuple):
        return tuple(np.stack(values) for values in zip(*layers, strict=True))
    return np.stack(layers)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _split_in_three(fused: Transform) -> Transform:
    return Transform(
        lambda *parts: fused.forward(np.concatenate(parts)), lambda x: tuple(np.split(fused.backward(x)[0], 3))
    )


def _of_rank(x: np.ndarray, rank: int) -> np.ndarray:
    if x.ndim != rank:
        raise ValueError(f"an array of {rank} axes is wanted, got shape {x.shape}")
    return x


def _as(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    if len(shape) != x.ndim or any(wanted not in (-1, got) for wanted, got in zip(shape, x.shape, strict=True)):
        raise ValueError(f"shape {tuple(shape)} is wanted, got {x.shape}")
    return x
