"""What the video transformers of Hugging Face's transformers share: VideoMAE, ViViT and TimeSformer."""

from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from .clip import dense, norm
from .family import ACTIVATIONS, choice, number
from .files import SourceFiles
from .rules import Rule

HEAD = r"classifier\.(weight|bias)"
"""Tensors of the classification head."""
_METHODS = {"2": "bilinear", "3": "bicubic"}  # Pillow's numbers


def sizes(config: dict[str, Any], *, source: str) -> dict[str, Any]:
    """Return the arguments that the towers of these families share."""
    epsilon, hidden = (
        number(config, "layer_norm_eps", source=source),
        number(config, "intermediate_size", source=source),
    )
    return {
        "image_size": one_number(
            number(config, "image_size", default=224, source=source), key="image_size", source=source
        ),
        "width": number(config, "hidden_size", source=source),
        "depth": number(config, "num_hidden_layers", source=source),
        "heads": number(config, "num_attention_heads", source=source),
        "activation": choice(
            number(config, "hidden_act", source=source), known=ACTIVATIONS, key="hidden_act", source=source
        ),
        "block": {"norm_epsilon": epsilon, "mlp_hidden": hidden},
    }


def one_number(value: Any, *, key: str, source: str) -> int:
    """Return the side of a square that a config gives as a number or as two equal ones.

    Raises:
      UserError: it is no square.
    """
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) != 1 or not isinstance(value := sides.pop(), int):
        raise UserError(f"the config of {source} has {key}={value!r}, wanted one side of a square")
    return value


def body(files: SourceFiles, *, name: str) -> tuple[str, list[str]]:
    """Return the prefix of the encoder's tensors, and a note if a classification head is left out."""
    prefix = f"{name}." if any(tensor.startswith(f"{name}.") for tensor in files.tensors) else ""
    left_out = "the classification head (classifier) is left out: the model is a video encoder without a joint space"
    return prefix, [left_out] if "classifier.weight" in files.tensors else []


def layer_rules() -> list[Rule]:
    """Return the rules of a layer but for queries, keys and values of its attention."""
    return [
        *dense("attention.output.dense", "attention/out"),
        *(*norm("layernorm_before", "norm1"), *norm("layernorm_after", "norm2")),
        *(*dense("intermediate.dense", "up"), *dense("output.dense", "down")),
    ]


def input_of(
    files: SourceFiles,
    *,
    frames: int,
    size: int,
    mean: list[float],
    std: list[float],
    short: int,
    factor: float = 1 / 255,
) -> InputSpec:
    """Return the input of a model as its `preprocessor_config.json` has it; the arguments hold where it says nothing.

    Args:
      files: the model.
      frames: T.
      size: side of the model's frames, pixels.
      mean: of red, green and blue.
      std: of red, green and blue.
      short: shorter side before the crop.
      factor: on pixels 0..255. With `offset` 1 is subtracted before the mean (ViViT).

    Raises:
      UserError: preprocessing that is not known, or to frames of another size than the model's.
    """
    given = files.json("preprocessor_config.json") or files.json("video_preprocessor_config.json")
    if not given.get("do_rescale", True):
        raise UserError(f"{files.name}: do_rescale=false in preprocessor_config.json, wanted pixels that are scaled")
    scale = 255 * given.get("rescale_factor", factor)
    if given.get("do_normalize", True):
        mean, std = given.get("image_mean", mean), given.get("image_std", std)
    else:
        mean, std = [0.0] * 3, [1.0] * 3
    offset = 1.0 if given.get("offset", factor != 1 / 255) else 0.0
    return InputSpec(
        num_frames=frames,
        eval_video=_resizing(given, size=size, short=short, source=files.name),
        pixel_mean=tuple((offset + channel) / scale for channel in mean),  # pyright: ignore[reportArgumentType]
        pixel_std=tuple(channel / scale for channel in std),  # pyright: ignore[reportArgumentType]
    )


def _resizing(given: dict[str, Any], *, size: int, short: int, source: str) -> str:
    method = choice(str(given.get("resample", 2)), known=_METHODS, key="resample", source=source)
    wanted, crop = given.get("size", short), given.get("crop_size", size)
    crop = crop.get("height") if isinstance(crop, dict) else crop
    if isinstance(wanted, dict) and "shortest_edge" not in wanted:
        height, width = wanted.get("height"), wanted.get("width")
        steps, final = [f"resize_{method}({height},{width})"], height if height == width else None
    else:
        edge = wanted["shortest_edge"] if isinstance(wanted, dict) else wanted
        steps, final = [f"resize_short_{method}({edge})"], None
    if given.get("do_center_crop", True) and final != size:
        steps, final = [*steps, f"center_crop({crop})"], crop
    if final != size:
        raise UserError(
            f"{source}: preprocessor_config.json makes frames of side {final}, config.json has image_size={size}; the "
            "two files belong to different models"
        )
    return "|".join(steps)
