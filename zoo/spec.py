"""One JSON-able answer to "what is this model?": towers, input, tokenizer, heads, origin."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..base.errors import UserError, unknown
from ..base.section import section
from ..data.options import InputSpec
from .variants import expanded

FORMAT = 1
"""Version of the JSON form."""
MODALITIES = ("video", "text", "audio")
"""All that a tower can encode."""
FAMILIES = {"video": "vivit", "text": "transformer", "audio": "ast"}
"""Modality -> the family of its tower where `config.model` does not name one."""
TASKS = ("classify", "localise", "highlight", "summarise", "anomaly", "identify", "recommend", "answer", "multitask")
"""Names of the heads of fine-tuned models."""
ADAPTERS = "adapters"
"""Field of a tower in a spec: name of `models.adapters.KINDS` -> its options, of the parameters added to it."""
LOGIT_STARTS: dict[str, dict[str, float]] = {"sigmoid": {"initial_scale": 10.0, "initial_bias": -10.0}}
"""Name of a loss -> where its parameters start unless `config.model` says otherwise (sigmoid: Zhai et al. 2023)."""


def features_of(towers: Mapping[str, Any]) -> dict[str, str]:
    """Return modality -> name of the precomputed features that its tower takes in training.

    Args:
      towers: modality -> arguments of its tower, as in a spec or in `config.model`, whose other fields are skipped.
    """
    named = {side: str((towers.get(side) or {}).get("features") or "") for side in FAMILIES}
    return {side: name for side, name in named.items() if name}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that is needed to build a model and to make its input; the parameters are the only other half of it.

    Attributes:
      towers: modality ("video", "text", "audio") -> `{"family": ..., arguments of its class}`, see `build.TOWERS`; with
        `ADAPTERS`, what was added to a tower.
      input: what turns files and strings into arrays.
      embed_dim: width E of the joint space; None for a model without one (a tower with a head, an encoder alone).
      projections: modality, or "fusion" -> how its vector gets into the joint space, one of
        `models.layers.projections.PROJECTIONS`; "linear" where nothing is said.
      fusion: `{"kind": ..., "modalities": [...], arguments of its class}`, of `models.fusion.table.FUSIONS`; {} = none.
      initial_scale: `exp(log_scale)` before training.
      initial_bias: the sigmoid loss's `bias` before training; None = the model has no such parameter.
      tokenizer: the tokenizer's meta (`Tokenizer.to_meta`); {} for a model without text.
      heads: name -> `{"kind": ..., arguments of the head}`: of a task ("classify") for a model without a joint space;
        of `models.heads.joint.JOINT_HEADS` for a dual tower, most of which have none.
      origin: where the parameters come from: `made_by` ("pretrain", "finetune" or "convert") and what else is known
        (source, revision, sha256, licence, config).
    """

    towers: Mapping[str, Mapping[str, Any]]
    input: InputSpec
    embed_dim: int | None = None
    projections: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fusion: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initial_scale: float = 1 / 0.07
    initial_bias: float | None = None
    tokenizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    heads: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def features(self) -> dict[str, str]:
        """Modality -> name of the precomputed features that its tower takes in training."""
        return features_of(self.towers)

    @property
    def task_heads(self) -> dict[str, Mapping[str, Any]]:
        """The heads of a fine-tuned model, which it has instead of a joint space."""
        return {name: head for name, head in self.heads.items() if name in TASKS}

    @property
    def joint_heads(self) -> dict[str, Mapping[str, Any]]:
        """The heads of a dual tower that score texts with clips, see `models.heads.joint`."""
        return {name: head for name, head in self.heads.items() if name not in TASKS}

    @property
    def sees_patches(self) -> bool:
        """Whether a head of a dual tower takes the tokens of patches."""
        return any(head.get("sees") == "patches" for head in self.joint_heads.values())

    def replace(self, **fields: Any) -> "ModelSpec":
        """Return a copy with some attributes changed."""
        return dataclasses.replace(self, **fields)

    @property
    def fused_side(self) -> str:
        """The name of the fused side in `config.loss.pairs`, such as "video+audio"; "" of a model without a fusion."""
        return "+".join(self.fusion["modalities"]) if self.fusion else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; `from_dict` reads it."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Any, *, name: str = "spec.json") -> "ModelSpec":
        """Read the JSON form.

        Args:
          values: of `to_dict`.
          name: what to call it in errors.

        Raises:
          UserError: another version of the form, or a field that is unknown, missing or of another type.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            got = values.get("format") if isinstance(values, Mapping) else type(values).__name__
            raise UserError(
                f"{name} is of format {got!r}, this version of twinreel reads format {FORMAT}; "
                "load the model with the version that wrote it"
            )
        fields: dict[str, Any] = {key: value for key, value in values.items() if key != "format"}
        known = [field.name for field in dataclasses.fields(cls)]
        for key in fields:
            if key not in known:
                raise unknown(f"field of {name}", key, known)
        for key in ("towers", "input"):
            if not isinstance(fields.get(key), Mapping):
                raise UserError(f"{name} lacks the field {key!r}; it is not a model of twinreel, or it is damaged")
        fields["input"] = section(InputSpec, fields["input"], name=f"{name}.input")
        return cls(**fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """`config.model`: towers and sizes, and how the run computes them.

    Attributes:
      video: arguments of the video tower, with `family` if it is not "vivit"; `variant` stands for its sizes, see
        `zoo.variants`, as in the other towers.
      text: arguments of the text tower, with `family` if it is not "transformer".
      audio: arguments of the audio tower, with `family` if it is not "ast"; None = no such tower.
      embed_dim: E.
      projections: modality, or "fusion" -> one of `models.layers.projections.PROJECTIONS`; "linear" where nothing is
        said.
      fusion: `{"kind": "attention", "modalities": ["video", "audio"], ...}`: fuses these modalities of a clip into one
        side of `config.loss.pairs`, "video+audio"; the further fields are the arguments of the class that
        `models.fusion.table.FUSIONS` has for the kind, `width` = `embed_dim` where nothing is said. None = no fusion.
      heads: heads that see texts and clips together: `{"text_pooling": {"kind": "x_pool"}, "matching": {"kind":
        "cross_encoder", "depth": 2}}`; the further fields are the arguments of the class that
        `models.heads.joint.JOINT_HEADS` has for the kind. Each needs its term in `config.loss.terms`. None = none.
      initial_scale: `exp(log_scale)` at the start, above 0 and at most 100; None = as the loss has it.
      initial_bias: the sigmoid loss's bias at the start; None = as the loss has it.
      remat: what the backward pass of every tower computes again, a policy of `models.layers.remat`.
      unroll: layers in one turn of the loop over them, in every tower; 0 = all, no loop.
      attention: what computes self-attention, one of `models.layers.backends.BACKENDS`, for every tower or by name:
        `{"video": "splash", "text": "xla"}`, "auto" for those that are not named.

    With `source` (and `video.source`, `text.source`, `audio.source`) the section takes towers, and what else it leaves
    open, from other models: `zoo.sources.find_sources` replaces these names by what they stand for.
    """

    embed_dim: int
    video: Mapping[str, Any] | None = None
    text: Mapping[str, Any] | None = None
    audio: Mapping[str, Any] | None = None
    projections: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fusion: Mapping[str, Any] | None = None
    heads: Mapping[str, Mapping[str, Any]] | None = None
    initial_scale: float | None = None
    initial_bias: float | None = None
    remat: str = "none"
    unroll: int = 1
    attention: str | Mapping[str, str] = "auto"

    def __post_init__(self):
        if self.embed_dim < 1:
            raise UserError(f"config.model.embed_dim must be at least 1, got {self.embed_dim}")

    def spec(self, *, input: InputSpec, vocab_size: int, loss: str = "infonce") -> ModelSpec:
        """Return the spec of a new dual tower; tokenizer and origin are for the caller to fill in.

        Args:
          input: what the towers take.
          vocab_size: V, of the tokenizer.
          loss: `config.loss.name`; decides where the parameters of the loss start.
        """
        given = {"video": self.video, "text": self.text, "audio": self.audio}
        towers = {
            side: {"family": FAMILIES[side], **expanded(tower, family=FAMILIES[side])}
            for side, tower in given.items()
            if tower is not None
        }
        projections = dict(self.projections)
        if "text" in towers:
            towers["text"] = {"vocab_size": vocab_size, **towers["text"]}
        start: dict[str, Any] = dict(LOGIT_STARTS.get(loss, {}))
        for name in ("initial_scale", "initial_bias"):
            if getattr(self, name) is not None:
                start[name] = getattr(self, name)
        fusion = checked_fusion(self.fusion, towers=towers) if self.fusion else {}
        given = {"input": input, "embed_dim": self.embed_dim, "projections": projections, "fusion": fusion}
        given["heads"] = {name: dict(head) for name, head in (self.heads or {}).items()}
        return ModelSpec(towers=towers, **given, **start)


def checked_fusion(fusion: Any, *, towers: Collection[str]) -> dict[str, Any]:
    """Check kind and modalities of `config.model.fusion`, and return it with the modalities as a list.

    Args:
      fusion: the section.
      towers: modalities that the model has.

    Raises:
      UserError: a field that is missing, or modalities that are unknown, fewer than two, repeated, or without a tower.
    """
    wanted = "such as {'kind': 'attention', 'modalities': ['video', 'audio']}"
    if not isinstance(fusion, Mapping):
        raise UserError(f"config.model.fusion must be a section, {wanted}, got {fusion!r}")
    for field in ("kind", "modalities"):
        if field not in fusion:
            raise UserError(f"config.model.fusion lacks {field!r}; write it {wanted}")
    sides = fusion["modalities"]
    if isinstance(sides, str) or not isinstance(sides, Sequence) or len(sides) < 2 or len(set(sides)) < len(sides):
        raise UserError(
            f"config.model.fusion.modalities={sides!r} must be a list of at least two different modalities, such as "
            "['video', 'audio']"
        )
    for side in sides:
        if side not in MODALITIES:
            raise unknown("modality in config.model.fusion.modalities", side, MODALITIES)
        if side not in towers:
            more = " and set config.data.audio_seconds" if side == "audio" else ""
            raise UserError(
                f"config.model.fusion.modalities={list(sides)}: no tower for {side!r}; add config.model.{side}{more}, "
                "or leave it out"
            )
    return {**fusion, "modalities": list(sides)}
