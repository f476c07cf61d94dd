"""wav2vec 2.0 as Hugging Face's transformers writes it (Baevski et al. 2020), a sound encoder.

What pretraining and recognition add is left out: quantizer, projections, the heads, and the vector that stands for
masked frames.
"""

from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.options import SAMPLE_RATE, InputSpec
from ..spec import ModelSpec
from .clip import dense, norm
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .hf import beginning, layer_sizes
from .processor import SOUND, settings
from .rules import Rule, prefixed, rule
from .transforms import Transform, rearranged, separate_biases, separate_kernels

_SECONDS = 10.0  # the model takes any length; this one is for batches
_IGNORED = (
    r"(wav2vec2\.)?masked_spec_embed",
    r"(quantizer|project_q|project_hid|lm_head|projector|classifier)\..*",
)
_POSITION = "encoder.pos_conv_embed.conv"
_WEIGHT_NORMS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
"""Names of the factor and of the direction of a weight-normalised kernel: in older and in newer files."""


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    features = settings(files, sections=SOUND)
    choice(features.get("sampling_rate", SAMPLE_RATE), known={SAMPLE_RATE: 0}, key="sampling_rate", source=name)
    for key in ("add_adapter", "adapter_attn_dim"):
        if config.get(key):
            raise UserError(f"{name} has adapters ({key}={config[key]}), which twinreel does not read")
    act = {
        key: choice(number(config, key, default="gelu", source=name), known=ACTIVATIONS, key=key, source=name)
        for key in ("hidden_act", "feat_extract_activation")
    }
    stable = bool(config.get("do_stable_layer_norm", False))
    audio = layer_sizes(config, source=name) | {
        "channels": list(number(config, "conv_dim", source=name)),
        "kernels": list(number(config, "conv_kernel", source=name)),
        "strides": list(number(config, "conv_stride", source=name)),
        "conv_bias": bool(config.get("conv_bias", False)),
        "conv_norm": choice(
            config.get("feat_extract_norm", "group"),
            known={"group": "group", "layer": "layer"},
            key="feat_extract_norm",
            source=name,
        ),
        "conv_activation": act["feat_extract_activation"],
        "normalise": bool(features.get("do_normalize", True)),
        "position_kernel": number(config, "num_conv_pos_embeddings", source=name),
        "position_groups": number(config, "num_conv_pos_embedding_groups", source=name),
        "activation": act["hidden_act"],
        "block": {
            "mlp_hidden": number(config, "intermediate_size", source=name),
            "norm_epsilon": number(config, "layer_norm_eps", default=1e-5, source=name),
            "norm_position": "pre" if stable else "post",
        },
    }
    spec = ModelSpec(
        towers={"audio": {"family": "wav2vec2", **audio}}, input=InputSpec(num_frames=0, audio_seconds=_SECONDS)
    )
    start = beginning(files, models=("wav2vec2",), marker="feature_projection.projection.weight")
    names = next((pair for pair in _WEIGHT_NORMS if f"{start}{_POSITION}.{pair[0]}" in files.tensors), _WEIGHT_NORMS[1])
    return Conversion(spec=spec, rules=prefixed(table(audio=audio, weight_norm=names), source=start), ignored=_IGNORED)


def table(*, audio: dict[str, Any], weight_norm: tuple[str, str] = _WEIGHT_NORMS[1]) -> list[Rule]:
    """Return the table of a sound encoder; import and export read it.

    Args:
      audio: arguments of our tower.
      weight_norm: names of the factor and of the direction of the kernel of positions.
    """
    convolutions = []
    for layer in range(len(audio["channels"])):
        source = f"feature_extractor.conv_layers.{layer}"
        convolutions.append(rule(f"{source}.conv.weight", f"convolutions/{layer}/kernel", rearranged("o i k", "k i o")))
        if audio["conv_bias"]:
            convolutions.append(rule(f"{source}.conv.bias", f"convolutions/{layer}/bias"))
        if audio["conv_norm"] == "layer" or not layer:
            convolutions += norm(f"{source}.layer_norm", f"conv_norms/{layer}")
    before = audio["block"]["norm_position"] == "post"
    rules = [
        *convolutions,
        *norm("feature_projection.layer_norm", "norm"),
        *dense("feature_projection.projection", "embed"),
        rule([f"{_POSITION}.{one}" for one in weight_norm], "position/kernel", _weight_normalised()),
        rule(f"{_POSITION}.bias", "position/bias"),
        *norm("encoder.layer_norm", "pre_norm" if before else "blocks/norm"),
        *prefixed(_layers(heads=audio["heads"]), source="encoder.layers.#.", path="blocks/layers/"),
    ]
    return prefixed(rules, path="audio/")


def _layers(*, heads: int) -> list[Rule]:
    names = [f"attention.{side}_proj" for side in "qkv"]
    return [
        rule([f"{name}.weight" for name in names], "attention/qkv/kernel", separate_kernels(heads=heads)),
        rule([f"{name}.bias" for name in names], "attention/qkv/bias", separate_biases(heads=heads)),
        *dense("attention.out_proj", "attention/out"),
        *(*norm("layer_norm", "norm1"), *norm("final_layer_norm", "norm2")),
        *(*dense("feed_forward.intermediate_dense", "up"), *dense("feed_forward.output_dense", "down")),
    ]


def _weight_normalised() -> Transform:
    """A factor `[1,1,k]` times a direction `[out,in,k]` of unit length at each place k, as one kernel `[k,in,out]`.

    On the way back the direction is the kernel, and the factor its length: the same product.
    """

    def length(direction: np.ndarray) -> np.ndarray:
        return np.sqrt(np.sum(np.square(direction, dtype=np.float64), axis=(0, 1), keepdims=True))

    def forward(factor: np.ndarray, direction: np.ndarray) -> np.ndarray:
        kernel = factor * (direction / length(direction))
        return kernel.astype(direction.dtype).transpose(2, 1, 0)

    def backward(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        direction = kernel.transpose(2, 1, 0)
        return length(direction).astype(kernel.dtype), direction

    return Transform(forward, backward)


FAMILY = Family(
    name="wav2vec2",
    models=("facebook/wav2vec2-{base,large,large-lv60}*", "facebook/wav2vec2-xls-r-*, wav2vec2-large-xlsr-53"),
    licence="Apache-2.0",
    matches=lambda files: files.config.get("model_type") == "wav2vec2",
    conversion=_conversion,
)
