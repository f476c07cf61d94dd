"""The heads of a dual tower, `config.model.heads`, built from its spec."""

from collections.abc import Mapping
from typing import Any

from ..base.errors import UserError, unknown
from ..base.section import arguments, section
from ..models.heads.joint import JOINT_HEADS, JointHead
from .spec import ADAPTERS, ModelSpec

_OF_SOURCE = ("tokenizer", "frozen", "adapt")  # fields of a language model as a head that its class does not take


def joint_heads(spec: ModelSpec, *, towers: Mapping[str, Any], layers: Mapping[str, Any]) -> dict[str, JointHead]:
    """Build the heads of a dual tower.

    Args:
      spec: of the model.
      towers: modality -> its tower.
      layers: `remat`, `unroll` and `rngs`.

    Raises:
      UserError: a tower that is missing, an unknown head, kind or field, or sizes that do not fit.
    """
    if spec.joint_heads and not {"video", "text"} <= set(towers):
        raise UserError(
            f"config.model.heads={list(spec.joint_heads)} need a video and a text tower; add the one missing"
        )
    found = {}
    for name, given in spec.joint_heads.items():
        if name not in JOINT_HEADS:
            raise unknown("head in config.model.heads", name, JOINT_HEADS)
        kinds, fields = JOINT_HEADS[name], dict(given)
        kind = fields.pop("kind", None)
        if kind not in kinds:
            raise unknown(f"kind of head in config.model.heads.{name}.kind", str(kind), kinds)
        sizes = {"embed_dim": spec.embed_dim, "text_width": towers["text"].width, "video_width": towers["video"].width}
        sizes |= {"vocab_size": spec.towers["text"]["vocab_size"], "context_length": spec.input.context_length}
        sizes |= {"patch_width": patch_width(spec, towers["video"])}
        sizes |= {"layout": getattr(towers["video"], "patch_layout", None)}
        sizes |= {"audio_width": towers["audio"].width if "audio" in towers else None}
        takes = arguments(kinds[kind])
        sizes = {key: value for key, value in (sizes | dict(layers)).items() if key in takes}
        if "decoder" in takes:
            fields = _of_language_model(fields, name=name)
        found[name] = section(kinds[kind], fields, name=f"model.heads.{name}", **sizes)
    return found


def patch_width(spec: ModelSpec, tower: Any) -> int | None:
    """Return the width of a video tower's tokens of patches; None if it has none, or takes features made before."""
    if "video" in spec.features or not hasattr(tower, "tokens"):
        return None
    return getattr(tower, "tokens_width", tower.width)


def _of_language_model(fields: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Return the arguments of a head that is a language model."""
    if "decoder" not in fields:
        raise UserError(
            f"config.model.heads.{name} of the kind 'language_model' needs a source; set config.model.heads.{name}."
            "source to the weights of GPT-2, Llama, SmolLM2 or Gemma, a folder or hf:ORGANISATION/NAME"
        )
    decoder = {key: value for key, value in fields["decoder"].items() if key != ADAPTERS}
    return {key: value for key, value in fields.items() if key not in _OF_SOURCE} | {"decoder": decoder}
