"""Rules of convolutions and of BatchNorm, as PyTorch's modules name their tensors."""

from .rules import Rule, rule
from .transforms import Transform, rearranged

STATISTICS_COUNTED = r".*\.num_batches_tracked"
"""A buffer of BatchNorm that no computation uses."""
_AXES = {2: "h w", 3: "t h w"}


def conv_kernel(axes: int) -> Transform:
    """The weight `[out, in, ...]` of a convolution over 2 or 3 axes as a kernel `[..., in, out]`."""
    places = _AXES[axes]
    return rearranged(f"o i {places}", f"{places} i o")


def batch_norm(source: str, path: str) -> list[Rule]:
    """Return the rules of BatchNorm with its running statistics."""
    names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
    return [rule(f"{source}.{theirs}", f"{path}/{ours}") for theirs, ours in names.items()]


def conv_norm(conv: str, norm: str, path: str, *, axes: int, bias: bool = False) -> list[Rule]:
    """Return the rules of a convolution and the BatchNorm after it, of a `models.layers.conv.ConvNorm`.

    Args:
      conv: name of the convolution.
      norm: name of the BatchNorm; "" = there is none.
      path: of our layer.
      axes: 2 or 3.
      bias: the convolution has a bias.
    """
    rules = [rule(f"{conv}.weight", f"{path}/conv/kernel", conv_kernel(axes))]
    if bias:
        rules.append(rule(f"{conv}.bias", f"{path}/conv/bias"))
    return [*rules, *(batch_norm(norm, f"{path}/norm") if norm else [])]
