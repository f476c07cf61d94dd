"""TimeSformer as Hugging Face's transformers writes it (Bertasius et al. 2021, arXiv:2102.05095): a video encoder."""

from typing import Any

from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import dense, norm
from .family import Conversion, Family, choice, number
from .files import SourceFiles
from .hf_video import HEAD, body, layer_rules, sizes
from .processor import PixelDefaults, pixel_fields
from .rules import Rule, prefixed, rule
from .transforms import class_token_and_positions, conv_patches, fused_bias, fused_kernel, reshaped
from .viclip import IMAGENET_MEAN, IMAGENET_STD


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    prefix, notes = body(files, name="timesformer")
    kind = number(config, "attention_type", default="divided_space_time", source=name)
    choice(kind, known={"divided_space_time": ""}, key="attention_type", source=name)
    frames = number(config, "num_frames", default=8, source=name)
    video = sizes(config, source=name)
    video |= {
        "patch": number(config, "patch_size", default=16, source=name),
        **{"space_method": "nearest", "time_method": "nearest", "pool": "cls"},
        "block": video["block"] | {"qkv_bias": bool(config.get("qkv_bias", True))},
    }
    sides = {"size": video["image_size"], "short": video["image_size"]}
    defaults = PixelDefaults(**sides, method="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    spec = ModelSpec(
        towers={"video": {"family": "divided", **video}},
        input=InputSpec(num_frames=frames, **pixel_fields(files, defaults=defaults)),
    )
    rules = table(video=video, prefix=prefix, num_frames=frames)
    return Conversion(spec=spec, rules=rules, ignored=(HEAD,), notes=notes)


def table(*, video: dict[str, Any], prefix: str, num_frames: int) -> list[Rule]:
    """Return the table of a model with this tower; import and export read it.

    Args:
      video: arguments of the tower.
      prefix: of the encoder's tensors, "timesformer." or "".
      num_frames: T.
    """
    heads, times = video["heads"], (num_frames, video["width"])
    own = [*layer_rules(), *dense("temporal_attention.output.dense", "time/out")]
    own += [*norm("temporal_layernorm", "norm_time"), *dense("temporal_dense", "time_dense")]
    for source, path in (("attention", "attention"), ("temporal_attention", "time")):
        own.append(rule(f"{source}.attention.qkv.weight", f"{path}/qkv/kernel", fused_kernel(heads=heads)))
        if video["block"]["qkv_bias"]:
            own.append(rule(f"{source}.attention.qkv.bias", f"{path}/qkv/bias", fused_bias(heads=heads)))
    encoder = [
        rule(
            ["embeddings.cls_token", "embeddings.position_embeddings"],
            ["class_token", "space_position"],
            class_token_and_positions(batched=True),
        ),
        rule("embeddings.time_embeddings", "time_position", reshaped(tensor=(1, *times), parameter=times)),
        rule("embeddings.patch_embeddings.projection.weight", "embed/out/kernel", conv_patches(patch=video["patch"])),
        rule("embeddings.patch_embeddings.projection.bias", "embed/out/bias"),
        *prefixed(own, source="encoder.layer.#.", path="blocks/layers/"),
        *norm("layernorm", "blocks/norm"),
    ]
    return prefixed(encoder, source=prefix, path="video/")


FAMILY = Family(
    name="timesformer",
    models=("facebook/timesformer-{base,hr}-finetuned-{k400,k600,ssv2} (pickles)",),
    licence="CC-BY-NC-4.0",
    matches=lambda files: files.config.get("model_type") == "timesformer",
    conversion=_conversion,
)
