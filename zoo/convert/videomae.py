"""VideoMAE as Hugging Face's transformers writes it (Tong et al. 2022, arXiv:2203.12602): a video encoder."""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import norm
from .family import Conversion, Family, number
from .files import SourceFiles
from .hf_video import HEAD, body, layer_rules, sizes
from .processor import PixelDefaults, pixel_fields
from .rules import Rule, prefixed, rule
from .transforms import conv_patches, query_value_biases, separate_kernels

_PRETRAINING = (r"decoder\..*", r"encoder_to_decoder\.weight", "mask_token")


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    prefix, notes = body(files, name="videomae")
    averaged = bool(config.get("use_mean_pooling", True))
    frames, biased = number(config, "num_frames", default=16, source=name), bool(config.get("qv_bias", True))
    video = sizes(config, source=name)
    video |= {
        "patch": number(config, "patch_size", default=16, source=name),
        "tubelet": number(config, "tubelet_size", default=2, source=name),
        **{"class_token": False, "position": "sinusoids", "pool": "mean" if averaged else "first"},
        "pool_norm": 1e-5 if averaged and "fc_norm.weight" in files.tensors else None,
        "block": video["block"] | {"final_norm": not averaged, "qkv_bias": biased},
    }
    defaults = PixelDefaults(size=video["image_size"], short=video["image_size"], method="bilinear")
    spec = ModelSpec(
        towers={"video": {"family": "joint", **video}},
        input=InputSpec(num_frames=frames, **pixel_fields(files, defaults=defaults)),
    )
    if "mask_token" in files.tensors:
        notes.append("the decoder of the pretraining is left out: the model is a video encoder without a joint space")
    stack = f"{prefix}encoder.layer.0.attention.attention."
    rules = table(video=video, prefix=prefix, old_names=f"{stack}q_bias" in files.tensors)
    return Conversion(spec=spec, rules=rules, ignored=(HEAD, *_PRETRAINING), notes=notes)


def table(*, video: dict[str, Any], prefix: str, old_names: bool) -> list[Rule]:
    """Return the table of a model with this tower; import and export read it.

    Args:
      video: arguments of the tower.
      prefix: of the encoder's tensors, "videomae." or "".
      old_names: biases are `q_bias` and `v_bias`, as all public files have them, not `query.bias` and `value.bias`.
    """
    heads, block = video["heads"], video["block"]
    weights = [f"attention.attention.{side}.weight" for side in ("query", "key", "value")]
    own = [rule(weights, "attention/qkv/kernel", separate_kernels(heads=heads)), *layer_rules()]
    if block["qkv_bias"]:
        names = ("q_bias", "v_bias") if old_names else ("query.bias", "value.bias")
        biases = [f"attention.attention.{side}" for side in names]
        own.append(rule(biases, "attention/qkv/bias", query_value_biases(heads=heads)))
    patches = conv_patches(patch=video["patch"], tubelet=video["tubelet"])
    encoder = [
        rule("embeddings.patch_embeddings.projection.weight", "embed/out/kernel", patches),
        rule("embeddings.patch_embeddings.projection.bias", "embed/out/bias"),
        *prefixed(own, source="encoder.layer.#.", path="blocks/layers/"),
        *(norm("layernorm", "blocks/norm") if block["final_norm"] else []),
    ]
    pooled = norm("fc_norm", "video/pool_norm") if video["pool_norm"] is not None else []
    return [*prefixed(encoder, source=prefix, path="video/"), *pooled]


FAMILY = Family(
    name="videomae",
    models=("MCG-NJU/videomae-{small,base,large,huge}*",),
    licence="CC-BY-NC-4.0",
    matches=lambda files: files.config.get("model_type") == "videomae",
    conversion=_conversion,
)
