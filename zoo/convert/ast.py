"""AST as Hugging Face's transformers writes it (Gong et al. 2021), with the filter banks of its feature extractor."""

from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import norm
from .family import ACTIVATIONS, Conversion, Family, choice, number
from .files import SourceFiles
from .hf import beginning, layer_sizes, vit_layers
from .processor import SOUND, settings
from .rules import Rule, prefixed, rule
from .transforms import Transform, rearranged

_KIND = "audio-spectrogram-transformer"
_MODEL = "audio_spectrogram_transformer"
_MEAN, _DEVIATION = -4.2677393, 4.5689974  # of AudioSet's filter banks
_WINDOW, _HOP, _RATE = 400, 160, 16_000


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    features = settings(files, sections=SOUND)
    choice(features.get("sampling_rate", _RATE), known={_RATE: 0}, key="sampling_rate", source=name)
    frames = number(config, "max_length", default=1024, source=name)
    for key, value in (("max_length", frames), ("num_mel_bins", number(config, "num_mel_bins", source=name))):
        if features.get(key, value) != value:
            raise UserError(
                f"{name}: {key} is {value} in config.json and {features[key]} in the file of its feature extractor; "
                "the files belong to different models"
            )
    normalised = bool(features.get("do_normalize", True))
    act = choice(number(config, "hidden_act", source=name), known=ACTIVATIONS, key="hidden_act", source=name)
    audio = layer_sizes(config, source=name) | {
        "frames": frames,
        "mels": number(config, "num_mel_bins", source=name),
        "patch": number(config, "patch_size", source=name),
        "time_stride": number(config, "time_stride", source=name),
        "mel_stride": number(config, "frequency_stride", source=name),
        "mean": features.get("mean", _MEAN) if normalised else 0.0,
        "spread": 2 * features.get("std", _DEVIATION) if normalised else 1.0,
        "activation": act,
        "block": {
            "mlp_hidden": number(config, "intermediate_size", source=name),
            "norm_epsilon": number(config, "layer_norm_eps", default=1e-12, source=name),
            "qkv_bias": bool(config.get("qkv_bias", True)),
        },
    }
    seconds = (_WINDOW + (frames - 1) * _HOP) / _RATE
    spec = ModelSpec(
        towers={"audio": {"family": "ast_public", **audio}}, input=InputSpec(num_frames=0, audio_seconds=seconds)
    )
    start = beginning(files, models=(_MODEL,), marker="embeddings.cls_token")
    return Conversion(spec=spec, rules=table(audio=audio, start=start), ignored=(r"classifier\..*",))


def table(*, audio: dict[str, Any], start: str = "") -> list[Rule]:
    """Return the table of a sound encoder; import and export read it.

    Args:
      audio: arguments of our tower.
      start: what all names of tensors begin with, "audio_spectrogram_transformer." in models with a head.
    """
    tokens = [f"embeddings.{name}" for name in ("cls_token", "distillation_token", "position_embeddings")]
    patches = "embeddings.patch_embeddings.projection"
    layers = vit_layers(heads=audio["heads"], bias=audio["block"]["qkv_bias"])
    rules = [
        rule(tokens, ["class_token", "position"], _tokens_and_positions()),
        rule(f"{patches}.weight", "embed/kernel", rearranged("d c q p", "(c q p) d", c=1, q=audio["patch"])),
        rule(f"{patches}.bias", "embed/bias"),
        *prefixed(layers, source="encoder.", path="blocks/"),
        *norm("layernorm", "blocks/norm"),
    ]
    return prefixed(rules, source=start, path="audio/")


def _tokens_and_positions() -> Transform:
    """Two tokens and positions `[1, 2 + N, D]`; our tokens hold the sum of token and position."""

    def forward(first: np.ndarray, second: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.concatenate([first, second], axis=1)[0]
        return tokens + positions[0, :2], positions[0, 2:]

    def backward(tokens: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, ...]:
        whole = np.concatenate([np.zeros_like(tokens), positions])
        return tokens[None, :1], tokens[None, 1:], whole[None]

    return Transform(forward, backward)


FAMILY = Family(
    name="ast",
    models=("MIT/ast-finetuned-audioset-*", "MIT/ast-finetuned-speech-commands-v2"),
    licence="BSD-3-Clause (code); Apache-2.0 as mteb lists the weights",
    matches=lambda files: files.config.get("model_type") == _KIND,
    conversion=_conversion,
)
