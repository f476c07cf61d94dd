"""A model, a clip and what is asked of it: scores of the clip, its sound and the text with parts of them taken away."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float64

from ..base.errors import UserError, unknown
from ..encode.devices.rows import padded, ways
from ..encode.embed.encoder import Encoder
from ..encode.predict.predictor import Predictor
from ..zoo.build import argument_of
from .cells import baseline_of
from .clip import Clip
from .scores import SIMILARITY, Muted, Occluded, Rows, Score
from .words import token_words, without, words_of

SEGMENTS = 16
"""Equal parts of the sound that a model hears."""

Tick = Callable[[int], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a model, and how.

    Attributes:
      text: of a dual tower; "" of a classifier.
      label: the class to explain; "" = the predicted one.
      sound: explain the sound, too; a fusion's sound is always explained, if the clip has any.
      baseline: one of `cells.BASELINES`.
      grid: cells G along each side of a picture.
      batch_size: changed clips at a time.
    """

    text: str = ""
    label: str = ""
    sound: bool = False
    baseline: str = "mean_colour"
    grid: int = 8
    batch_size: int = 16


class Explained:
    """Scores of a clip with parts of it taken away. Every batch has one shape, so each function compiles once.

    Attributes:
      model: the encoder or the classifier.
      clip: what it is shown.
      asked: what is asked.
      score: of the clip, as a function of the model.
      shared: arrays that all changed clips share.
      steps: time steps t, each of as many frames as a token of the video tower.
      label: the class that is explained; "" without classes.
      words: of the text; [] of a classifier.
      fused: whether pictures and sound are embedded as one.
    """

    def __init__(self, model: Encoder | Predictor, clip: Clip, *, asked: Asked):
        """Check what is asked, and embed the text.

        Raises:
          UserError: see `check` and `check_clip`, an unknown label or baseline, or a grid that is too fine.
        """
        self.model, self.clip, self.asked = model, clip, asked
        video, spec = clip.video, model.spec
        if not 1 <= asked.grid <= min(video.shape[1:3]):
            raise UserError(f"--grid must be at least 1 and at most {min(video.shape[1:3])}, got {asked.grid}")
        self.steps = _steps(spec.towers["video"], frames=len(video))
        baseline = baseline_of(video, name=asked.baseline, steps=self.steps)
        if np.array_equal(baseline, video):
            raise UserError(f"the clip is its own baseline (--baseline {asked.baseline}); choose another one")
        self.shared: dict[str, np.ndarray] = {"video": video, "baseline": baseline}
        self.words: list[str] = []
        self.fused, self.label = False, ""
        if isinstance(model, Encoder):
            self._of_encoder(model)
        else:
            self._of_classifier(model)

    def _of_encoder(self, model: Encoder) -> None:
        clip = self.clip
        self.fused = "+" in model.clip_side
        self.score = Score(SIMILARITY, model.clip_side)
        self.words = words_of(self.asked.text, spec=model.input)
        self.shared |= {"target": self.text_embeddings([" ".join(self.words)])[0]}
        if clip.mask is not None:
            self.shared["mask"] = clip.mask
        if self.fused or self.heard:
            audio, sound = clip.audio if clip.audio is not None else np.zeros(0, np.int16), model.input.audio_samples
            row = np.zeros(sound, np.int16)
            row[: len(audio)] = audio
            segment = np.minimum(np.arange(sound) * SEGMENTS // max(len(audio), 1), SEGMENTS - 1).astype(np.int32)
            self.shared |= {"audio": row, "audio_samples": np.array(len(audio), np.int32), "segment": segment}

    def _of_classifier(self, model: Predictor) -> None:
        self.score = Score(model.kind)
        if model.kind == "regression":
            decode = model.spec.heads["classify"]["decode"]
            self.shared |= {name: np.array(decode[name], np.float32) for name in ("mean", "std")}
            return
        labels = list(model.labels)
        self.label = self.asked.label or next(iter(model.named(self.probabilities)["probabilities"]))
        if self.label not in labels:
            raise unknown("--label", self.label, labels)
        self.shared["label"] = np.array(labels.index(self.label), np.int32)

    @property
    def heard(self) -> bool:
        """Whether the sound is explained."""
        return self.clip.audio is not None and (self.fused or self.asked.sound)

    @property
    def probabilities(self) -> Float64[np.ndarray, "classes"]:
        """What a classifier says of the clip, as `Predictor.predict_arrays`."""
        assert isinstance(self.model, Predictor)
        return self.model.predict_arrays(self.clip.video[None])[0]

    def value(self, score: Any) -> Any:
        """Return what a score means: a cosine, a probability, or a number."""
        if self.score.kind in (SIMILARITY, "regression"):
            return score
        return 1 / (1 + np.exp(-np.clip(score, -700, 700)))

    @property
    def unit(self) -> str:
        """The name of what `value` returns."""
        kinds = {SIMILARITY: "cosine with the text", "regression": "predicted value"}
        return kinds.get(self.score.kind, f"probability of {self.label!r}")

    def video_scores(self, keep: Bool[np.ndarray, "n t G G"], *, tick: Tick | None = None) -> Float64[np.ndarray, "n"]:
        """Score the clip with the cells that each row keeps; the baseline stands in the others."""
        return self.apply(Occluded(self.score), {"keep": keep}, tick=tick)["score"].astype(np.float64)

    def sound_scores(self, keep: Bool[np.ndarray, "n K"], *, tick: Tick | None = None) -> Float64[np.ndarray, "n"]:
        """Score the sound (or the clip with it) with the segments that each row keeps; the others are silent."""
        return self.apply(Muted(self.score, self.fused), {"keep": keep}, tick=tick)["score"].astype(np.float64)

    def word_scores(self, keep: Bool[np.ndarray, "n W"], *, tick: Tick | None = None) -> Float64[np.ndarray, "n"]:
        """Score the clip with the text of the words that each row keeps; the others are left out."""
        found = self.text_embeddings(without(self.words, keep=keep)) @ self.clip_embedding
        if tick is not None:
            tick(len(keep))
        return found.astype(np.float64)

    def text_embeddings(self, texts: list[str]) -> np.ndarray:
        """Embed texts that are cleaned already, float32 [n,E]."""
        assert isinstance(self.model, Encoder)
        ids, mask, _ = self.model.tokenizer.encode(texts, context_length=self.model.input.context_length)
        size = self.model.global_batch(4 * self.asked.batch_size, total=4 * self.asked.batch_size)
        return self.model.encode_text_ids(ids, mask=mask, batch_size=size)

    @property
    def clip_embedding(self) -> np.ndarray:
        """The embedding of the whole clip, float32 [E]."""
        assert isinstance(self.model, Encoder)
        rows = {"video": self.clip.video[None]}
        if self.fused:
            samples = self.shared["audio_samples"][None]
            rows |= {"audio": self.shared["audio"][None], "audio_samples": samples, "audio_mask": samples > 0}
        if self.clip.mask is not None:
            rows["video_mask"] = self.clip.mask[None]
        rows = {name: padded(value, size=ways(self.model.mesh)) for name, value in rows.items()}
        return self.model.embed_local(rows, side=self.model.clip_side)["embedding"][0]

    def tokens(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return what functions of a text's tokens share, and the number of each token's word (-1 = none)."""
        assert isinstance(self.model, Encoder)
        length, tokenizer = self.model.input.context_length, self.model.tokenizer
        ids, mask, _ = tokenizer.encode([" ".join(self.words)], context_length=length)
        owner = token_words(self.words, tokenizer=tokenizer, context_length=length)
        shared = {"text": ids[0], "text_mask": mask[0], "worded": owner >= 0, "clip": self.clip_embedding}
        return shared, owner

    def apply(
        self,
        function: Callable[[Any, Rows], Rows],
        rows: dict[str, np.ndarray],
        *,
        shared: dict[str, np.ndarray] | None = None,
        batch_size: int = 0,
        tick: Tick | None = None,
    ) -> dict[str, np.ndarray]:
        """Call a function of `scores` or `rollout` with rows in batches of one size; results have a row for each.

        Args:
          function: a value, so that it compiles once.
          rows: name -> array with n rows.
          shared: what it takes besides; None = `self.shared`.
          batch_size: rows at a time; 0 = as asked.
          tick: called with how many rows are done since the last call.
        """
        batch = batch_size or self.asked.batch_size
        size, total = self.model.global_batch(batch, total=batch), len(next(iter(rows.values())))
        found = []
        for begin in range(0, total, size):
            part = {name: padded(value[begin : begin + size], size=size) for name, value in rows.items()}
            given = self.shared if shared is None else shared
            made = self.model.apply_local(part, function=function, shared=given)
            found.append({name: value[: total - begin] for name, value in made.items()})
            if tick is not None:
                tick(min(size, total - begin))
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def check(model: Any, *, asked: Asked, name: str) -> None:
    """Raise UserError unless a loaded model can be asked this; `name` is where it was loaded from."""
    if jax.process_count() > 1:
        raise UserError("`twinreel explain` runs in one process; start it without `launch`")
    if isinstance(model, Predictor):
        if asked.text:
            raise UserError(f"{name} is a classifier, which no text asks; leave --text out (--label NAME: a class)")
        if asked.sound:
            raise UserError(f"{name} is a classifier of pictures and hears nothing; leave --sound out")
        if model.kind == "regression" and asked.label:
            raise UserError(f"{name} predicts a number and has no classes; leave --label out")
        _check_frames(model, name=name)
        return
    if not isinstance(model, Encoder):
        heads = ", ".join(model.spec.task_heads) or "a decoder"
        raise UserError(f"{name} is a model with {heads}; `explain` takes dual towers and classifiers ('classify')")
    if not asked.text.strip():
        raise UserError(f'{name} is a dual tower: give the text whose similarity is to be explained (--text "...")')
    if asked.label:
        raise UserError(f"{name} is a dual tower and has no classes; leave --label out, and give --text")
    _check_frames(model, name=name)
    if asked.sound and "audio" not in model.spec.towers:
        raise UserError(f"--sound: {name} has no audio tower (it has: {', '.join(model.spec.towers)})")
    if not words_of(asked.text, spec=model.input):
        raise UserError(f"--text {asked.text!r} is empty after cleaning ({model.input.text!r}); give some words")


def check_clip(clip: Clip, *, asked: Asked) -> None:
    """Raise UserError for a clip without sound whose sound is to be explained."""
    if asked.sound and clip.audio is None:
        raise UserError(f"--sound: {clip.path} has no sound, or nothing but silence; leave --sound out")


def _check_frames(model: Encoder | Predictor, *, name: str) -> None:
    tower = model.spec.towers.get("video")
    if tower is None:
        raise UserError(f"{name} has no video tower (it has: {', '.join(model.spec.towers)}); there is nothing to show")
    if tower["family"] == "features":
        raise UserError(
            f"{name} takes precomputed features {model.spec.features['video']!r} and no frames, so no pixel can be "
            "changed; give a model with an image tower"
        )


def _steps(tower: Any, *, frames: int) -> int:
    """Return into how many time steps a video tower divides its frames."""
    tubelet = argument_of(tower, side="video", field="tubelet") or 1
    return frames // tubelet if frames % tubelet == 0 else frames
