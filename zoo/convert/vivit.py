"""ViViT "model 1" as Hugging Face's transformers writes it (Arnab et al. 2021, arXiv:2103.15691): a video encoder."""

from typing import Any

from ...base.errors import UserError
from ...data.options import InputSpec
from ..spec import ModelSpec
from .clip import norm
from .family import Conversion, Family, number
from .files import SourceFiles
from .hf_video import HEAD, body, layer_rules, one_number, sizes
from .processor import PixelDefaults, pixel_fields
from .rules import Rule, prefixed, rule
from .transforms import class_token_and_positions, conv_patches, separate_biases, separate_kernels

_SIDES = ("query", "key", "value")


def _conversion(files: SourceFiles) -> Conversion:
    config, name = files.config, files.name
    prefix, notes = body(files, name="vivit")
    given = number(config, "tubelet_size", default=[2, 16, 16], source=name)
    if not isinstance(given, list) or len(given) != 3:
        raise UserError(f"the config of {name} has tubelet_size={given!r}, wanted frames, rows and columns")
    frames = number(config, "num_frames", default=32, source=name)
    video = sizes(config, source=name)
    video |= {
        "patch": one_number(given[1:], key="tubelet_size", source=name),
        "tubelet": given[0],
        **{"class_token": True, "position": "joint", "time_method": "linear", "pool": "cls"},
        "block": video["block"] | {"qkv_bias": bool(config.get("qkv_bias", True))},
    }
    size = video["image_size"]
    scaled = {"method": "bilinear", "factor": 1 / 127.5, "offset": True}
    defaults = PixelDefaults(size=size, short=256 * size // 224, **scaled)
    spec = ModelSpec(
        towers={"video": {"family": "joint", **video}},
        input=InputSpec(num_frames=frames, **pixel_fields(files, defaults=defaults)),
    )
    if "pooler.dense.weight" in files.tensors:
        notes.append("the pooler (a dense layer with tanh) is left out: the encoder gives the class token")
    ignored = (HEAD, r"(vivit\.)?pooler\.dense\.(weight|bias)")
    return Conversion(spec=spec, rules=table(video=video, prefix=prefix), ignored=ignored, notes=notes)


def table(*, video: dict[str, Any], prefix: str) -> list[Rule]:
    """Return the table of a model with this tower; import and export read it.

    Args:
      video: arguments of the tower.
      prefix: of the encoder's tensors, "vivit." or "".
    """
    weights, biases = ([f"attention.attention.{side}.{kind}" for side in _SIDES] for kind in ("weight", "bias"))
    own = [rule(weights, "attention/qkv/kernel", separate_kernels(heads=video["heads"])), *layer_rules()]
    if video["block"]["qkv_bias"]:
        own.append(rule(biases, "attention/qkv/bias", separate_biases(heads=video["heads"])))
    patches = conv_patches(patch=video["patch"], tubelet=video["tubelet"])
    encoder = [
        rule(
            ["embeddings.cls_token", "embeddings.position_embeddings"],
            ["class_token", "position"],
            class_token_and_positions(batched=True),
        ),
        rule("embeddings.patch_embeddings.projection.weight", "embed/out/kernel", patches),
        rule("embeddings.patch_embeddings.projection.bias", "embed/out/bias"),
        *prefixed(own, source="encoder.layer.#.", path="blocks/layers/"),
        *norm("layernorm", "blocks/norm"),
    ]
    return prefixed(encoder, source=prefix, path="video/")


FAMILY = Family(
    name="vivit",
    models=("google/vivit-b-16x2-kinetics400 (safetensors at refs/pr/3)", "google/vivit-b-16x2"),
    licence="MIT",
    matches=lambda files: files.config.get("model_type") == "vivit",
    conversion=_conversion,
)
