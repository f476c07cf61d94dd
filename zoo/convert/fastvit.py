"""The tensors of FastViT in timm, in two forms: as trained, with parallel branches, and with their sums.

The published files hold the branches: convolutions, each with BatchNorm, and BatchNorm alone. They add up to one
convolution with a bias (structural reparameterisation, Ding et al. 2021), which our tower has. Export writes the sums,
the form of timm's `inference_mode`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from .clip import dense, norm
from .convolutions import batch_norm, conv_kernel, conv_norm
from .rules import Rule, prefixed, rule
from .transforms import Transform, fused_kernel, rearranged, reshaped

MODELS: dict[str, dict[str, Any]] = {
    "fastvit_mci0": {"widths": [64, 128, 256, 512], "depths": [2, 6, 10, 2]},
    "fastvit_mci1": {"widths": [64, 128, 256, 512], "depths": [4, 12, 20, 4]},
    "fastvit_mci2": {"widths": [80, 160, 320, 640], "depths": [4, 12, 24, 4]},
    "fastvit_mci3": {"widths": [96, 192, 384, 768, 1536], "depths": [2, 12, 24, 4, 2]},
    "fastvit_mci4": {"widths": [128, 256, 512, 1024, 2048], "depths": [2, 12, 24, 4, 4]},
}
"""timm's name -> sizes (timm 1.0, models/fastvit.py; Vasu et al. 2024, MobileCLIP; Faghri et al. 2025, MobileCLIP2)."""
_SMALL = {
    **{"mlp_ratios": [3.0] * 4, "attention": [False, False, False, True], "squeeze": [False, False, True, True]},
    "norm": "batch",
}
_LARGE = {
    **{"mlp_ratios": [4.0] * 5, "attention": [False, False, False, True, True], "squeeze": [False] * 5},
    "norm": "layer",
}
_EPSILON = 1e-5  # of BatchNorm
_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def fastvit_image(
    name: str, *, changes: dict[str, Any], embed_dim: int, inference: bool
) -> tuple[dict[str, Any], list[Rule]]:
    """Return the arguments of our image tower and the rules of its tensors.

    Args:
      name: one of `MODELS`.
      changes: other sizes than those of the name.
      embed_dim: E.
      inference: the tensors are the sums of the branches.
    """
    form = _LARGE if len(MODELS[name]["widths"]) == 5 else _SMALL
    image = {"family": "fastvit", **form, **MODELS[name], **changes, "projection": embed_dim}
    return image, prefixed(table(image=image, inference=inference), source="visual.trunk.", path="video/image/")


def table(*, image: dict[str, Any], inference: bool) -> list[Rule]:
    """Return the table of a tower; import reads both forms, export writes that of `inference`.

    Args:
      image: arguments of the image tower.
      inference: the tensors are the sums of the branches.
    """
    scaled = image["norm"] == "batch"  # the stem of the two largest models has no 1 x 1 branches
    stem = [_Sum(3, scaled=scaled), _Sum(3, scaled=scaled, same=False), _Sum(1, same=True)]
    rules = []
    for number, form in enumerate(stem):
        rules += _summed(f"stem.{number}", f"stem/{number}", form=form, inference=inference)
    for number, depth in enumerate(image["depths"]):
        attends = image["attention"][number]
        own = [] if not number else _down(squeeze=image["squeeze"][number], inference=inference)
        own += _position(inference=inference) if attends else []
        heads = image["widths"][number] // 32
        for block in range(depth):
            one = _attention_block(heads=heads, norms=image["norm"]) if attends else _mixer_block(inference=inference)
            own += prefixed([*one, *_mlp()], source=f"blocks.{block}.", path=f"blocks/{block}/")
        rules += prefixed(own, source=f"stages.{number}.", path=f"stages/{number}/")
    return [
        *rules,
        *_summed("final_conv", "final/conv", form=_Sum(3, scaled=True), inference=inference),
        *_excitation("final_conv.se", "final"),
        *dense("head.fc", "projection"),
    ]


@dataclasses.dataclass(frozen=True)
class _Sum:
    """A convolution whose training form has several branches.

    Attributes:
      kernel: side of the largest.
      scaled: there is a branch of 1 x 1, too.
      same: there is a branch of BatchNorm alone.
    """

    kernel: int
    scaled: bool = False
    same: bool = False


def _summed(source: str, path: str, *, form: _Sum, inference: bool) -> list[Rule]:
    """Return the rules of timm's MobileOneBlock."""
    if inference:
        return _plain(f"{source}.reparam_conv", path)
    branches = [("conv_kxk.0.conv", "conv_kxk.0.bn")]
    branches += [("conv_scale.conv", "conv_scale.bn")] if form.scaled else []
    branches += [("", "identity")] if form.same else []
    names = [name for branch in branches for name in _branch(*branch)]
    sizes = [5 if conv else 4 for conv, _ in branches]

    def forward(*x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = _split(x, sizes)
        folded = [_folded(part, kernel=form.kernel, like=parts[0][0]) for part in parts]
        return _ours(sum(kernel for kernel, _ in folded), sum(bias for _, bias in folded))

    sources = [f"{source}.{name}" for name in names]
    return [rule(sources, [f"{path}/conv/kernel", f"{path}/conv/bias"], Transform(forward, _no_way_back))]


def _mixer_block(*, inference: bool) -> list[Rule]:
    """Return the rules of RepMixer: `x + scale * (mixer(x) - norm(x))`, and of the scale of the MLP."""
    scale = rule("layer_scale.gamma", "scale2", reshaped(tensor=(-1, 1, 1), parameter=(-1,)))
    if inference:
        return [*_plain("token_mixer.reparam_conv", "mixer"), scale]
    branches = [*_branch("mixer.conv_kxk.0.conv", "mixer.conv_kxk.0.bn")]
    branches += [*_branch("mixer.conv_scale.conv", "mixer.conv_scale.bn"), *_branch("", "mixer.identity")]
    sources = [*branches, *_branch("", "norm.identity"), "layer_scale.gamma"]

    def forward(*x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        *parts, (gamma,) = _split(x, [5, 5, 4, 4, 1])
        like = parts[0][0]
        *mixer, normed = [_folded(part, kernel=3, like=like) for part in parts]
        gamma = gamma.reshape(-1)
        kernel = sum(one for one, _ in mixer) - normed[0]
        bias = sum(one for _, one in mixer) - normed[1]
        return _ours(_unit_kernel(like) + gamma[:, None, None, None] * kernel, gamma * bias)

    names = [f"token_mixer.{name}" for name in sources]
    return [rule(names, ["mixer/conv/kernel", "mixer/conv/bias"], Transform(forward, _no_way_back)), scale]


def _down(*, squeeze: bool, inference: bool) -> list[Rule]:
    source, path = "downsample.proj.0", "down"
    if inference:
        rules = _plain(f"{source}.reparam_conv", f"{path}/conv")
    else:
        names = [*_branch("large_conv.conv", "large_conv.bn"), *_branch("small_conv.conv", "small_conv.bn")]

        def forward(*x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            large, small = (_folded(part, kernel=7, like=x[0]) for part in _split(x, [5, 5]))
            return _ours(large[0] + small[0], large[1] + small[1])

        paths = [f"{path}/conv/conv/kernel", f"{path}/conv/conv/bias"]
        rules = [rule([f"{source}.{name}" for name in names], paths, Transform(forward, _no_way_back))]
    rules += _excitation(f"{source}.se", path) if squeeze else []
    return rules + _summed("downsample.proj.1", "mix", form=_Sum(1, same=True), inference=inference)


def _position(*, inference: bool) -> list[Rule]:
    if inference:
        return _plain("pos_emb.reparam_conv", "position")
    both = Transform(
        lambda weight, bias: _ours(_unit_kernel(weight) + weight, bias),
        lambda kernel, bias: (_theirs(kernel) - _unit_kernel(_theirs(kernel)), bias),
    )
    sources = ["pos_emb.pos_enc.weight", "pos_emb.pos_enc.bias"]
    return [rule(sources, ["position/conv/kernel", "position/conv/bias"], both)]


def _attention_block(*, heads: int, norms: str) -> list[Rule]:
    flat = reshaped(tensor=(-1, 1, 1), parameter=(-1,))
    return [
        *(batch_norm("norm", "norm") if norms == "batch" else norm("norm", "norm")),
        rule("token_mixer.qkv.weight", "attention/qkv/kernel", fused_kernel(heads=heads)),
        *dense("token_mixer.proj", "attention/out"),
        *(rule("layer_scale_1.gamma", "scale1", flat), rule("layer_scale_2.gamma", "scale2", flat)),
    ]


def _mlp() -> list[Rule]:
    return [
        *conv_norm("mlp.conv.conv", "mlp.conv.bn", "conv", axes=2),
        *_pointwise("mlp.fc1", "up"),
        *_pointwise("mlp.fc2", "down"),
    ]


def _excitation(source: str, path: str) -> list[Rule]:
    return [*_pointwise(f"{source}.fc1", f"{path}/narrow"), *_pointwise(f"{source}.fc2", f"{path}/widen")]


def _pointwise(source: str, path: str) -> list[Rule]:
    """Return the rules of a convolution of 1 x 1 as a linear map."""
    kernel = rearranged("o i h w", "(i h w) o", h=1, w=1)
    return [rule(f"{source}.weight", f"{path}/kernel", kernel), rule(f"{source}.bias", f"{path}/bias")]


def _plain(source: str, path: str) -> list[Rule]:
    return [
        rule(f"{source}.weight", f"{path}/conv/kernel", conv_kernel(2)),
        rule(f"{source}.bias", f"{path}/conv/bias"),
    ]


def _branch(conv: str, norms: str) -> list[str]:
    return [*([f"{conv}.weight"] if conv else []), *(f"{norms}.{name}" for name in _STATISTICS)]


def _split(x: Sequence[np.ndarray], sizes: Sequence[int]) -> list[list[np.ndarray]]:
    left = list(x)
    return [[left.pop(0) for _ in range(size)] for size in sizes]


def _folded(part: Sequence[np.ndarray], *, kernel: int, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one branch as a convolution `[out,in,kernel,kernel]` with a bias, float64.

    Args:
      part: the weight of its convolution, if it has one, then scale, bias, mean and variance of its BatchNorm.
      kernel: wanted side; smaller ones are padded with zeros.
      like: the weight of the largest convolution, for the shape of a branch without one.
    """
    scale, bias, mean, variance = (value.astype(np.float64) for value in part[-4:])
    weight = part[0].astype(np.float64) if len(part) == 5 else _unit_kernel(like)
    pad = (kernel - weight.shape[-1]) // 2
    weight = np.pad(weight, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    factor = scale / np.sqrt(variance + _EPSILON)
    return weight * factor[:, None, None, None], bias - mean * factor


def _unit_kernel(like: np.ndarray) -> np.ndarray:
    """Return the convolution of that shape that changes nothing; `like` has one input channel, or as many as output."""
    out, width_in, rows, columns = like.shape
    unit = np.zeros(like.shape, np.float64)
    unit[np.arange(out), np.arange(out) % width_in, rows // 2, columns // 2] = 1
    return unit


def _ours(kernel: Any, bias: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.moveaxis(kernel, (0, 1), (3, 2)).astype(np.float32), np.asarray(bias, np.float32)


def _theirs(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel, (3, 2), (0, 1))


def _no_way_back(*_: np.ndarray) -> tuple[np.ndarray, ...]:
    raise UserError("the branches of FastViT cannot be taken apart again; export the form with their sums")
