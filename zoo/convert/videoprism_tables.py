"""The tensors of VideoPrism: those of DeepMind's npz, and those of transformers."""

import math
from typing import Any

from .clip import dense, norm
from .rules import Rule, prefixed, rule
from .transforms import (
    constant,
    conv_patches,
    each_layer,
    headed_biases,
    headed_kernels,
    rearranged,
    reshaped,
    separate_biases,
    separate_kernels,
)

STACK = "transformers_stack/x_layers"
"""Layers of a video encoder in an npz: each tensor holds all of them."""
TEXT_STACK = "unimodal_transformer/x_layers"
"""Likewise, of the text encoder."""
NPZ_POOLER = "params/contrastive_vision_pooler"
STORED_POSITIONS = "text_model.embeddings.position_embedding"
"""The sinusoids that transformers stores."""
_SIDES = ("query", "key", "value")
_NO_TEMPERATURE = rule((), "log_scale", constant(math.log(1 / 0.07)))  # no file holds one; `ModelSpec.initial_scale`


def npz(*, video: dict[str, Any], text: dict[str, Any]) -> list[Rule]:
    """Return the table of DeepMind's npz.

    Args:
      video: arguments of the video tower.
      text: arguments of the text tower; {} for an encoder alone.
    """
    encoder = [
        *_npz_dense("patch_projection/linear", "embed/out"),
        rule("spatial_pos_emb/emb_var", "space_position"),
        rule("temporal_pos_emb/emb_var", "time_position"),
        *_npz_layers(f"spatial_encoder/{STACK}", "space", heads=video["heads"]),
        *_npz_layers(f"temporal_encoder/{STACK}", "time", heads=video["heads"]),
        *(*_npz_norm("spatial_ln", "space/norm"), *_npz_norm("temporal_ln", "time/norm")),
    ]
    if not text:
        return prefixed(encoder, source="params/", path="video/")
    words = [
        rule("token_emb/emb_var", "embedding"),
        rule("cls_emb", "class_token", reshaped(tensor=(1, 1, -1), parameter=(1, -1))),
        *_npz_layers(TEXT_STACK, "blocks", heads=text["heads"]),
        *_npz_norm("unimodal_ln", "blocks/norm"),
    ]
    return [
        *prefixed(encoder, source="params/vision_encoder/", path="video/"),
        *prefixed(
            _npz_layers(STACK, "auxiliary", heads=video["heads"]), source="params/auxiliary_encoder/", path="video/"
        ),
        *prefixed(_npz_pooler(heads=video["heads"]), source=f"{NPZ_POOLER}/", path="video/pooler/"),
        *prefixed(words, source="params/text_encoder/", path="text/"),
        _NO_TEMPERATURE,
    ]


def transformers(*, video: dict[str, Any], text: dict[str, Any], pair: bool) -> list[Rule]:
    """Return the table of the transformers form.

    Args:
      video: arguments of the video tower.
      text: arguments of the text tower; {} for an encoder alone.
      pair: a video-text model, whose video tower stands under `video_model.`.
    """
    pooled = video.get("pool") == "attention"
    encoder = [
        rule(
            "spatial_embeddings.patch_embeddings.projection.weight",
            "embed/out/kernel",
            conv_patches(patch=video["patch"], tubelet=1),
        ),
        rule("spatial_embeddings.patch_embeddings.projection.bias", "embed/out/bias"),
        _positions("spatial_embeddings", "space_position"),
        _positions("temporal_embeddings", "time_position"),
        *prefixed(_layers(heads=video["heads"]), source="spatial_layers.#.", path="space/layers/"),
        *prefixed(_layers(heads=video["heads"]), source="temporal_layers.#.", path="time/layers/"),
        *(*norm("layernorm1", "space/norm"), *norm("layernorm2", "time/norm")),
    ]
    rules = prefixed(encoder, source="vision_model." if pooled else "")
    if pooled:
        rules += prefixed(_layers(heads=video["heads"]), source="auxiliary_layers.#.", path="auxiliary/layers/")
        rules += _pooler()
    rules = prefixed(rules, source="video_model." if pair else "", path="video/")
    if not text:
        return rules
    words = [
        rule("embeddings.token_embedding.weight", "embedding"),
        rule("embeddings.cls_emb", "class_token", reshaped(tensor=(1, 1, -1), parameter=(1, -1))),
        *prefixed(_layers(heads=text["heads"]), source="layers.#.", path="blocks/layers/"),
        *norm("layernorm", "blocks/norm"),
    ]
    rules += [*prefixed(words, source="text_model.", path="text/"), _NO_TEMPERATURE]
    return rules + ([rule(STORED_POSITIONS, "text/position")] if text["position"] == "learned" else [])


def _npz_dense(source: str, path: str) -> list[Rule]:
    return [rule(f"{source}/{name}", f"{path}/{name}") for name in ("kernel", "bias")]


def _npz_norm(source: str, path: str) -> list[Rule]:
    return [rule(f"{source}/{name}", f"{path}/{name}") for name in ("scale", "bias")]


def _npz_layers(source: str, path: str, *, heads: int) -> list[Rule]:
    """Return the rules of one stack: `source/...` -> `path/layers/...`."""
    out = each_layer(rearranged("o k d", "(k d) o", k=heads))
    own = [
        rule([f"{side}/w" for side in _SIDES], "qkv/kernel", each_layer(headed_kernels(heads=heads))),
        rule([f"{side}/b" for side in _SIDES], "qkv/bias", each_layer(headed_biases(heads=heads))),
        *(rule("post/w", "out/kernel", out), rule("post/b", "out/bias")),
    ]
    rules = [
        *prefixed(own, source="self_attention/", path="attention/"),
        *(*_npz_norm("layer_norm", "norm1"), *_npz_norm("ff_layer/layer_norm", "norm2")),
        *_npz_dense("ff_layer/ffn_layer1/linear", "up"),
        *_npz_dense("ff_layer/ffn_layer2/linear", "down"),
    ]
    return prefixed(rules, source=f"{source}/", path=f"{path}/layers/")


def _npz_pooler(*, heads: int) -> list[Rule]:
    into, bias = rearranged("i k d", "i (k d)", k=heads), rearranged("k d", "(k d)", k=heads)
    own = [
        *(rule(f"{side}/w", f"{side}/kernel", into) for side in _SIDES),
        *(rule(f"{side}/b", f"{side}/bias", bias) for side in _SIDES),
        rule("post/w", "out/kernel", rearranged("o k d", "(k d) o", k=heads)),
        rule("post/b", "out/bias"),
    ]
    return [
        rule("pooling_attention_query", "query"),
        *prefixed(own, source="pooling_attention/", path="attention/"),
        rule("pooling_attention/per_dim_scale/per_dim_scale", "per_dim_scale"),
        *_npz_norm("pooling_attention_layer_norm", "norm_pooled"),
    ]


def _positions(source: str, path: str) -> Rule:
    return rule(f"{source}.position_embeddings", path, rearranged("one n d", "(one n) d", one=1))


def _layers(*, heads: int) -> list[Rule]:
    names = [f"attention.{side}_proj" for side in "qkv"]
    return [
        rule([f"{name}.weight" for name in names], "attention/qkv/kernel", separate_kernels(heads=heads)),
        rule([f"{name}.bias" for name in names], "attention/qkv/bias", separate_biases(heads=heads)),
        *dense("attention.o_proj", "attention/out"),
        *(*norm("layernorm_before", "norm1"), *norm("layernorm_after", "norm2")),
        *(*dense("mlp.fc1", "up"), *dense("mlp.fc2", "down")),
    ]


def _pooler() -> list[Rule]:
    own = [one for side in _SIDES for one in dense(f"{side[0]}_proj", f"attention/{side}")]
    return [
        *prefixed(own, source="head.", path="pooler/"),
        *dense("head.o_proj", "pooler/attention/out"),
        rule("head.per_dim_scale", "pooler/per_dim_scale"),
        rule("head.pooling_attention_query", "pooler/query", reshaped(tensor=(1, 1, -1), parameter=(1, -1))),
        *norm("head_layernorm", "pooler/norm_pooled"),
    ]
