"""What the video transformers of Hugging Face's transformers share: VideoMAE, ViViT and TimeSformer."""

from typing import Any

from ...base.errors import UserError
from .clip import dense, norm
from .family import ACTIVATIONS, choice, number
from .files import SourceFiles
from .rules import Rule

HEAD = r"classifier\.(weight|bias)"
"""Tensors of the classification head."""


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
