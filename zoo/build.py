"""The one place where a model is built from its spec."""

import dataclasses
import functools
import inspect
import json
from collections.abc import Mapping
from typing import Any

from flax import nnx

from ..base.errors import UserError, unknown
from ..base.section import arguments, field_of, section
from ..data.options import SAMPLE_RATE
from ..models.adapters import KINDS, add
from ..models.backbone import Backbone
from ..models.decoder import TextDecoder
from ..models.dual import DualTower
from ..models.fusion.interface import Fusion
from ..models.fusion.table import FUSIONS
from ..models.heads.answers import ANSWER_HEADS, AnswerModel
from ..models.heads.classifier import HEADS, Classifier
from ..models.heads.distillation import TeacherProjection
from ..models.heads.embedding import EMBEDDING_HEADS, EmbeddingModel
from ..models.heads.moments import TIMELINE_HEADS
from ..models.heads.multitask import FORMS, MULTITASK_HEADS, MultiTaskModel
from ..models.heads.sequence import SEQUENCE_HEADS, SessionModel
from ..models.heads.steps import STEP_HEADS, StepModel
from ..models.heads.timeline import TimelineModel
from ..models.layers.backends import check_backend
from ..models.towers.ast import AudioTower
from ..models.towers.ast_public import PublicAstTower
from ..models.towers.divided import DividedTower
from ..models.towers.features import FeatureTower
from ..models.towers.frames import IMAGE_TOWERS, FramesTower
from ..models.towers.htsat import HtsatTower
from ..models.towers.joint import JointTower
from ..models.towers.lstm import RecurrentTextTower
from ..models.towers.r2plus1d import R2Plus1dTower
from ..models.towers.s3d import S3DTower
from ..models.towers.sound_cnn import SoundCnnTower, SoundRecurrentTower
from ..models.towers.transformer import TextTower
from ..models.towers.videoprism import VideoPrismTower
from ..models.towers.vivit import VideoTower
from ..models.towers.wav2vec2 import Wav2Vec2Tower
from ..models.towers.words import WordsTower
from .joint_heads import joint_heads, patch_width
from .spec import ADAPTERS, FAMILIES, MODALITIES, ModelSpec, checked_fusion
from .variants import expanded

TOWERS: dict[str, dict[str, type]] = {
    "video": {
        "vivit": VideoTower,
        "frames": FramesTower,
        "joint": JointTower,
        "divided": DividedTower,
        "videoprism": VideoPrismTower,
        "features": FeatureTower,
        "s3d": S3DTower,
        "r2plus1d": R2Plus1dTower,
    },
    "text": {"transformer": TextTower, "lstm": RecurrentTextTower, "words": WordsTower},
    "audio": {
        "ast": AudioTower,
        "ast_public": PublicAstTower,
        "htsat": HtsatTower,
        "cnn": SoundCnnTower,
        "recurrent": SoundRecurrentTower,
        "wav2vec2": Wav2Vec2Tower,
    },
    "decoder": {"transformer": TextDecoder},
}
"""Modality, or "decoder" for a language model -> name of a family -> the class of its towers."""

HEADED: dict[str, Mapping[str, type]] = {
    "classify": HEADS,
    "localise": TIMELINE_HEADS,
    "highlight": TIMELINE_HEADS,
    "summarise": TIMELINE_HEADS,
    "anomaly": STEP_HEADS,
    "identify": EMBEDDING_HEADS,
    "recommend": SEQUENCE_HEADS,
    "answer": ANSWER_HEADS,
    "multitask": MULTITASK_HEADS,
}
"""Name of a task in `spec.heads` -> kind of a head -> its class."""

_ON_TOKENS: dict[str, Any] = {"classify": Classifier, "identify": EmbeddingModel, "recommend": SessionModel}
"""Name of a task -> the model of a video tower and a head on its time tokens."""
_NO_ARGUMENTS = (
    "kind",
    "labels",
    "outputs",
    "decode",
    "teacher",
    "patch_grid",
)  # fields of a head in a spec that its class does not take


def build(
    spec: ModelSpec,
    *,
    rngs: nnx.Rngs,
    remat: str = "none",
    unroll: int = 1,
    attention: str | Mapping[str, str] = "auto",
) -> Any:
    """Build a model with fresh parameters.

    Args:
      spec: what it is.
      rngs: where the initial values come from.
      remat: what the backward pass of every tower computes again, a policy of `models.layers.remat`.
      unroll: layers in one turn of the loop over them, in every tower; 0 = all, no loop.
      attention: what computes self-attention, one of `models.layers.backends.BACKENDS`, for all towers or by tower.

    Returns:
      A `models.dual.DualTower`; of a spec with a head the model of that head, a `models.heads.classifier.Classifier`,
      `models.heads.timeline.TimelineModel`, `models.heads.steps.StepModel`, `models.heads.embedding.EmbeddingModel`,
      `models.heads.sequence.SessionModel`, `models.heads.answers.AnswerModel` or
      `models.heads.multitask.MultiTaskModel`; of one without `embed_dim` a `models.backbone.Backbone`.

    Raises:
      UserError: an unknown family, head or argument (the nearest one is named), or sizes that do not fit.
    """
    model = _built(spec, layers={"remat": remat, "unroll": unroll, "rngs": rngs}, backends=_backends(attention))
    for side, tower in spec.towers.items():  # last: the other parameters are drawn as without
        given = tower.get(ADAPTERS) or {}
        for name in given:
            if name not in KINDS:
                raise unknown(f"kind in the adapters of the {side} tower:", name, KINDS)
        kinds = {name: section(KINDS[name].options, one, name=f"adapt.{name}") for name, one in given.items()}
        add(getattr(model, side), kinds=kinds, rngs=rngs)
    for name, head in spec.joint_heads.items():
        given = head.get("decoder", {}).get(ADAPTERS) or {}
        kinds = {kind: KINDS[kind].options(**one | {"layers": tuple(one["layers"])}) for kind, one in given.items()}
        if kinds:
            add(model.heads[name].decoder.language_model, kinds=kinds, rngs=rngs)
    return model


def abstract(spec: ModelSpec, **layers: Any) -> Any:
    """Return a model of shapes, `jax.ShapeDtypeStruct` in place of arrays; one that was built before is copied.

    Args:
      spec: what it is.
      layers: `remat`, `unroll` and `attention`, as for `build`.

    Returns:
      What `build` returns; it belongs to the caller, who may fill it in.

    Raises:
      UserError: see `build`.
    """
    described = {key: value for key, value in spec.to_dict().items() if key not in ("tokenizer", "origin")}
    text = json.dumps([described, layers], sort_keys=True)
    return nnx.merge(*_shapes(_Described(text=text, spec=spec, layers=layers)), copy=True)


@dataclasses.dataclass(frozen=True)
class _Described:
    """The arguments of `abstract`, which are the same if `text` is."""

    text: str
    spec: ModelSpec = dataclasses.field(compare=False)
    layers: Mapping[str, Any] = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=32)
def _shapes(described: _Described) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: build(described.spec, rngs=nnx.Rngs(0), **described.layers)))


def _built(spec: ModelSpec, *, layers: dict[str, Any], backends: Mapping[str, str]) -> Any:
    """Return the model without what was added to its towers; for the arguments see `build`."""
    rngs = layers["rngs"]
    towers = {side: _tower(spec, side, layers=layers, backend=backends.get(side, "auto")) for side in spec.towers}
    if spec.task_heads:
        return _headed(spec, towers=towers, rngs=rngs)
    if spec.embed_dim is None:
        if spec.fusion:
            raise UserError("config.model.fusion needs a joint space; set config.model.embed_dim")
        return Backbone(**towers)
    for side in ("video", "text"):
        if side not in towers and not set(towers) >= {"audio", "text"}:
            raise UserError(f"config.model lacks the section {side!r}: a dual tower has video or audio, and text")
    return DualTower(
        **towers,
        fusion=_fusion(spec, towers=towers, layers=layers, backend=backends["fusion"]) if spec.fusion else None,
        heads=joint_heads(spec, towers=towers, layers=layers),
        embed_dim=spec.embed_dim,
        projections=spec.projections,
        initial_scale=spec.initial_scale,
        initial_bias=spec.initial_bias,
        rngs=rngs,
    )


def _tower(spec: ModelSpec, side: str, *, layers: Mapping[str, Any], backend: str) -> Any:
    if side not in TOWERS:
        raise unknown("tower in config.model:", side, TOWERS)
    given = {key: value for key, value in spec.towers[side].items() if key != ADAPTERS}
    family = given.pop("family")
    if family not in TOWERS[side]:
        raise unknown(f"family in config.model.{side}.family:", family, TOWERS[side])
    tower, sizes = TOWERS[side][family], _input_sizes(spec, side)
    if side == "audio" and spec.input.audio_rate != SAMPLE_RATE and "audio_rate" not in arguments(tower):
        raise UserError(
            f"config.data.audio_rate={spec.input.audio_rate}, but audio towers of the family {family!r} take sound of "
            f"{SAMPLE_RATE} Hz; set it to that"
        )
    if side == "video" and spec.input.mask_frames and "mask" not in inspect.signature(tower.__call__).parameters:
        raise UserError(
            f"config.data.mask_frames=True, but video towers of the family {family!r} know no masks of frames; set it "
            "to False: frames of short clips are then repeated"
        )
    sizes = {name: value for name, value in sizes.items() if name in arguments(tower)}
    given = _on_backend(tower, given, side=side, backend=backend)
    return section(tower, given, name=f"model.{side}", **sizes, **layers)


def _backends(attention: str | Mapping[str, str]) -> dict[str, str]:
    """Return tower, or "fusion" -> the backend of its attention."""
    sides = (*MODALITIES, "fusion")
    named = dict.fromkeys(sides, attention) if isinstance(attention, str) else dict(attention)
    for side, name in named.items():
        if side not in sides:
            raise unknown("tower in config.model.attention", side, sides)
        check_backend(name)
    return {side: named.get(side, "auto") for side in sides}


def _on_backend(made: Any, given: Mapping[str, Any], *, side: str, backend: str) -> dict[str, Any]:
    """Return the arguments of a tower with the backend of its attention in `block`, if it has that."""
    found = dict(given)
    if "attention" in (found.get("block") or {}):
        raise UserError(f"config.model.{side}.block has no field attention; set config.model.attention")
    if "block" in arguments(made) and backend != "auto":
        found["block"] = {**(found.get("block") or {}), "attention": backend}
    if "image" in found:  # an image tower inside
        image = IMAGE_TOWERS.get(found["image"].get("family", "vit"), made)
        found["image"] = _on_backend(image, found["image"], side=f"{side}.image", backend=backend)
    return found


def argument_of(tower: Mapping[str, Any], *, side: str, field: str) -> Any:
    """Return an argument of a tower in `config.model`: its value there, or the default of the tower's class.

    Args:
      tower: the section, such as `config.model.video`.
      side: "video", "text" or "audio".
      field: the argument; of a tower that encodes frames by themselves, that of its image tower goes first.

    Returns:
      The value, None if such a tower has no such argument.
    """
    tower = expanded(tower, family=FAMILIES[side])
    if "image" in tower:
        image = dict(tower["image"])
        named = field_of(IMAGE_TOWERS[image.pop("family", "vit")], image, field=field, absent=None)
        if named is not None:
            return named
    family = tower.get("family", FAMILIES[side])
    return field_of(TOWERS[side][family], tower, field=field, absent=None)


def feature_width(tower: Mapping[str, Any]) -> int:
    """Return the columns of the precomputed features that a tower of `config.model` takes."""
    if "input_width" in tower:
        return tower["input_width"]
    image = expanded(tower, family="frames")["image"]
    family = IMAGE_TOWERS[image.pop("family", "vit")]
    return nnx.eval_shape(lambda: family(**image, rngs=nnx.Rngs(0))).width


def _fusion(spec: ModelSpec, *, towers: Mapping[str, Any], layers: Mapping[str, Any], backend: str) -> Fusion:
    assert spec.embed_dim is not None
    fields = checked_fusion(spec.fusion, towers=towers)
    kind, sides = fields.pop("kind"), fields.pop("modalities")
    if kind not in FUSIONS:
        raise unknown("fusion in config.model.fusion.kind", kind, FUSIONS)
    made = FUSIONS[kind]
    fields = _on_backend(made, fields, side="fusion", backend=backend)
    seen = {side: spec.embed_dim if made.sees == "embeddings" else towers[side].width for side in sides}
    given = layers if made.sees == "tokens" else {"rngs": layers["rngs"]}
    return section(made, {"width": spec.embed_dim, **fields}, name="model.fusion", widths=seen, **given)


def _input_sizes(spec: ModelSpec, side: str) -> dict[str, Any]:
    """Return the arguments of a tower that follow from its input."""
    given = spec.input
    if side == "video":
        return {"num_frames": given.num_frames, "pixel_mean": given.pixel_mean, "pixel_std": given.pixel_std}
    if side in ("text", "decoder"):
        return {"context_length": given.context_length}
    return {"audio_samples": given.audio_samples, "audio_rate": given.audio_rate}


def _headed(
    spec: ModelSpec, *, towers: dict[str, Any], rngs: nnx.Rngs
) -> Classifier | TimelineModel | StepModel | EmbeddingModel | SessionModel | AnswerModel | MultiTaskModel:
    if spec.input.mask_frames:
        raise UserError(
            "config.data.mask_frames=True, but a head knows no masks of frames; set it to False: frames of short clips "
            "are then repeated"
        )
    [(task, given), *others] = spec.heads.items()
    if others or task not in HEADED:
        raise unknown("head in spec.heads:", ", ".join(spec.heads), HEADED)
    kinds = HEADED[task]
    if given["kind"] not in kinds:
        raise unknown("head in config.task.head", given["kind"], kinds)
    head, options = kinds[given["kind"]], {key: value for key, value in given.items() if key not in _NO_ARGUMENTS}
    width = towers["video"].width
    if kinds is MULTITASK_HEADS:
        return _joined(spec, towers=towers, rngs=rngs)
    if task in _ON_TOKENS:
        more: dict[str, Any] = {}
        if grid := given.get("patch_grid", 0):
            width, more = _width_of_patches(spec, towers["video"]), {"patch_grid": grid}
        classes = {} if kinds is SEQUENCE_HEADS else {"num_classes": given.get("outputs", len(given["labels"]))}
        made = section(head, options, name="task", width=width, rngs=rngs, **classes)
        taught = given.get("teacher")
        if taught:
            more["teacher"] = TeacherProjection(embed_dim=width, width=taught["width"], rngs=rngs)
        return _ON_TOKENS[task](video=towers["video"], head=made, **more)
    if kinds is STEP_HEADS:
        return StepModel(video=towers["video"], head=section(head, options, name="task", video_width=width, rngs=rngs))
    text, audio = towers.get("text"), towers.get("audio")
    if kinds is ANSWER_HEADS:
        outputs = len(given["labels"]) if given["kind"] == "closed" else 1
        sizes = {"video_width": width, "text_width": towers["text"].width, "rngs": rngs}
        sizes |= {"audio_width": audio.width if audio else None}
        written = {"vocab_size": spec.towers["text"]["vocab_size"], "context_length": spec.input.context_length}
        sizes |= written if given["kind"] == "generated" else {"outputs": outputs}
        return AnswerModel(**towers, head=section(head, options, name="task", **sizes))
    sizes = {"video_width": width, "text_width": text.width if text else None, "labels": len(given["labels"]) or 1}
    made = head(**sizes, **options, rngs=rngs)
    return TimelineModel(video=towers["video"], text=text, head=made)


def _width_of_patches(spec: ModelSpec, tower: Any) -> int:
    found = patch_width(spec, tower)
    if found is None:
        raise UserError("config.task.patch_grid needs tokens of patches, and the video tower has none; set it to 0")
    return found


def task_spec(spec: ModelSpec, name: str) -> ModelSpec:
    """Return the spec of one task of a model of several: its towers and its head.

    Args:
      spec: has the head "multitask".
      name: of the task.
    """
    given = dict(spec.heads["multitask"]["tasks"][name])
    task, sides = given.pop("task"), given.pop("sides")
    return spec.replace(towers={side: spec.towers[side] for side in sides}, heads={task: given})


def _joined(spec: ModelSpec, *, towers: dict[str, Any], rngs: nnx.Rngs) -> MultiTaskModel:
    """Return the model of several tasks, each head built as that of a model of its own."""
    given = dict(spec.heads["multitask"])
    tasks, forms, heads = given.pop("tasks"), [], {}
    for name, own in tasks.items():
        if own["task"] not in FORMS:
            raise unknown(f"task in config.task.tasks.{name}.name:", own["task"], FORMS)
        taken = {side: towers[side] for side in own["sides"]}
        heads[name] = _headed(task_spec(spec, name), towers=taken, rngs=rngs).head
        forms.append((name, own["task"], tuple(own["sides"])))
    options = {key: value for key, value in given.items() if key not in _NO_ARGUMENTS}
    width = towers["video"].width
    head = section(MULTITASK_HEADS[given["kind"]], options, name="task", tasks=heads, weighting=given["kind"],
                   width=width, rngs=rngs)  # fmt: skip
    return MultiTaskModel(**towers, head=head, forms=tuple(forms))
