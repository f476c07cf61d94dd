"""The section `config.data`: what the model eats, how it is fed, how training varies it. No tensorflow.

The section is flat, in config files and on the command line; its fields belong to three dataclasses. `InputSpec`
travels with a model (in `spec.json`). `FeedOptions` belongs to a run on a machine and is never inherited.
`Augmentation` holds what is drawn at random in training only.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..base.errors import UserError, unknown
from ..base.section import section

SAMPLE_RATE = 16_000
"""Hz, of the sound in records and batches."""
ORDERS, FETCHES = ("auto", "records", "blocks"), ("auto", "shards", "frames")
"""Values of `config.data.order` and of `config.data.fetch`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputSpec:
    """All that turns a file or a string into the arrays that the towers take.

    Attributes:
      num_frames: frames T of a clip; 0 for batches without video (precomputed features).
      eval_sampling: how frames are drawn, a name of `sampling.SAMPLERS` with its arguments; not random.
      eval_video: preprocessing of the drawn frames, see `preprocess.OPS`; ends in square frames; not random.
      mask_frames: clips of fewer than T frames, pictures among them, are padded and masked (`video_mask`) instead of
        repeating frames; the video tower must know masks.
      pixel_mean: mean of red, green and blue that the video tower subtracts, of pixels 0..1.
      pixel_std: standard deviation by which it then divides.
      text: text cleaning, see `text.clean.TEXT_OPS`; "" for none.
      context_length: tokens L of a text, begin and end included; longer ones are cut and counted.
      audio_seconds: seconds of sound; 0 for none.
      audio_rate: Hz of the sound that the audio tower takes. Records hold `SAMPLE_RATE`; a tower of a higher rate, such
        as CLAP's, takes that, too, but of files it then hears less than it could.
      decode: how a media file is decoded before frames are drawn, a part of the fields of `media.decode.DecodeOptions`
        (fps, short_side, jpeg_quality): as the records were prepared on which the model was trained, which fill it in.
        Of records with frames in H.264 there is no jpeg_quality: files are then decoded with the default.
        `crop_faces` is True of a model of faces that were cut out; whoever decodes files puts the detector's file in
        its place.
    """

    num_frames: int = 8
    eval_sampling: str = "uniform"
    eval_video: str = "resize_short(224)|center_crop(224)"
    mask_frames: bool = False
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    text: str = ""
    context_length: int = 64
    audio_seconds: float = 0.0
    audio_rate: int = SAMPLE_RATE
    decode: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in ("num_frames", "audio_seconds"):
            if getattr(self, name) < 0:
                raise UserError(f"config.data.{name} must be at least 0, got {getattr(self, name)}")
        if self.audio_rate < 1:
            raise UserError(f"config.data.audio_rate must be at least 1 Hz, got {self.audio_rate}")
        for name in ("pixel_mean", "pixel_std"):
            value = tuple(float(channel) for channel in getattr(self, name))
            if len(value) != 3 or (name == "pixel_std" and min(value) <= 0):
                raise UserError(f"config.data.{name} must be 3 numbers (red, green, blue; std above 0), got {value}")
            object.__setattr__(self, name, value)

    @property
    def audio_samples(self) -> int:
        """Samples S of sound in a row of a batch; 0 for none."""
        return round(self.audio_rate * self.audio_seconds)

    def as_prepared(self, options: Mapping[str, Any]) -> "InputSpec":
        """Return the input of a model that is trained on records which `prepare` made with these options."""
        kept = {key: options[key] for key in ("fps", "short_side", "jpeg_quality", "audio") if key in options}
        kept |= {"crop_faces": True} if options.get("crop_faces") else {}  # where the detector lies is not the model's
        return dataclasses.replace(self, decode=kept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """Where prepared records lie and how they become batches.

    Attributes:
      batch_size: rows of the global batch, over all processes.
      dir: folder that `twinreel prepare` made, or its URL. With a mixture: the one that is evaluated on during training
        ("" = the mixture's first).
      mixture: several folders to train on instead of one: `{name: {"dir": ..., "weight": ..., "split": ...}}`; weight
        and split (default: `train_split`) may be omitted.
      temperature: shares of a mixture without weights are proportional to `clips ** (1 / temperature)`.
      mix_by: "row" mixes sources within a batch, "batch" takes each batch from one source.
      train_split: split to train on.
      share: part of its source files that is trained on, above 0 and at most 1, for learning curves; which files is a
        function of their names and the seed, and a smaller share is a part of a larger one. Not with a mixture.
      window_seconds: draw from a window of this length instead of the whole clip: at a random place for training, in
        the middle for evaluation. Frames, sound, transcript and spans share it. 0 = the whole clip.
      eval_clips: windows V of each clip at evaluation, evenly spread; their embeddings are averaged.
      train_clips: windows V of each clip in training, evenly spread, for tasks that see a clip as a bag of windows;
        above 1 `video` is [b,V,T,H,W,3].
      text_from: "captions"; "sentences" = one sentence of the transcript within the window; "transcript" = all of them.
      captions_per_clip: candidate captions C of a row (multiple-instance losses); above 1 `text` is [b,C,L].
      foils_per_clip: wrong captions n of a row, from those of its record (`meta.foils` of the manifest), drawn anew in
        each epoch; the InfoNCE loss takes them as further negatives. Training only.
      foil_weights: name of a foil -> weight with which it is drawn; those not named are not drawn. {} = all alike.
      unique_captions: let no caption stand twice among the valid rows of a global batch (such rows are false
        negatives of each other): another caption of the clip is taken, and where all are taken the row is not valid.
      features: precomputed features to batch: `{modality: rows n}`; shorter ones are padded, of longer ones the rows at
        the middles of n equal parts of the window are taken.
      group_size: clips of one record `group` that stay together in one global batch (hard negatives).
      max_bad_fraction: share of a source's records that may turn out damaged; such rows are not valid.
      tokenizer: "train" to train SentencePiece on the train captions; else a SentencePiece `.model` file, a folder of
        Hugging Face tokenizer files, or `hf:ORGANISATION/NAME`.
      vocab_size: the largest vocabulary when it is trained.
      num_threads: threads for decoding; 0 for one per core.
      prefetch: batches made ahead.
      cache_dir: folder for local copies of what lies behind a URL (`dir=s3://bucket/prepared`); "" = `twinreel` in the
        user's cache folder. Not used for local folders.
      cache_gb: gigabytes that all copies in it may take, those unused for longest making room; 0 = as the disk has.
      order: of the records in training. "records" permutes all of them in each epoch; behind a URL this fetches the
        whole split first. "blocks" permutes the shards, and the records of a few shards at a time, so that each process
        fetches its share once an epoch and keeps little of it. "auto" = "blocks" if a source lies behind a URL.
      block_shards: with the order "blocks", shards among which records are permuted in each of the lanes of a batch.
      fetch: what is fetched of what lies behind a URL: "shards" = whole ones, with the order "blocks" ahead of their
        use; "frames" = of each record the drawn frames (and its sound) alone. "auto" = "frames" with the order "blocks"
        if fewer than half are drawn, else "shards"; with `features` always "shards".
    """

    batch_size: int
    dir: str = ""
    mixture: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    temperature: float = 1.0
    mix_by: str = "row"
    train_split: str = "train"
    share: float = 1.0
    window_seconds: float = 0.0
    eval_clips: int = 1
    train_clips: int = 1
    text_from: str = "captions"
    captions_per_clip: int = 1
    foils_per_clip: int = 0
    foil_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    unique_captions: bool = False
    features: Mapping[str, int] = dataclasses.field(default_factory=dict)
    group_size: int = 1
    max_bad_fraction: float = 0.0
    tokenizer: str = "train"
    vocab_size: int = 8000
    num_threads: int = 0
    prefetch: int = 2
    cache_dir: str = ""
    cache_gb: float = 0.0
    order: str = "auto"
    block_shards: int = 4
    fetch: str = "auto"

    def __post_init__(self):
        for name, least in (
            *(("window_seconds", 0), ("eval_clips", 1), ("train_clips", 1), ("num_threads", 0)),
            *(("prefetch", 0), ("max_bad_fraction", 0), ("foils_per_clip", 0), ("block_shards", 1)),
        ):
            if getattr(self, name) < least:
                raise UserError(f"config.data.{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.share <= 1:
            raise UserError(f"config.data.share must be above 0 and at most 1, got {self.share}")
        for name, known in (("order", ORDERS), ("fetch", FETCHES)):
            if getattr(self, name) not in known:
                raise unknown(f"value of config.data.{name}:", getattr(self, name), known)
        for name, weight in self.foil_weights.items():
            if not 0 <= weight < float("inf"):
                raise UserError(f"config.data.foil_weights.{name} must be a weight of at least 0, got {weight}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training draws at random; the defaults show clips and texts as evaluation does.

    Attributes:
      train_sampling: how frames are drawn, as `InputSpec.eval_sampling`; "" = as there.
      train_video: preprocessing, as `InputSpec.eval_video`, to frames of the same size; "" = as there.
      train_audio: sound augmentation, see `transforms.sound.AUDIO_OPS`; "" for none.
      prompts: templates such as "a video of {}", of which one is drawn for each text; () = the text as it is.
        Evaluation takes texts as they are.
    """

    train_sampling: str = ""
    train_video: str = ""
    train_audio: str = ""
    prompts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The whole section `config.data`.

    Attributes:
      input: what the model eats.
      feed: where it comes from.
      augment: how training varies it.
    """

    input: InputSpec
    feed: FeedOptions
    augment: Augmentation = dataclasses.field(default_factory=Augmentation)

    @classmethod
    def of(cls, values: Any) -> "DataOptions":
        """Sort the fields of a flat section into its parts.

        Args:
          values: `config.data`, a ConfigDict or a mapping.

        Raises:
          UserError: a field that no part has (the nearest one is suggested), or a value of another type.
        """
        if hasattr(values, "to_dict"):
            values = values.to_dict()
        if not isinstance(values, Mapping):
            raise UserError(f"config.data must be a section of fields, got {values!r}")
        flat = dict(values)
        known = [name for part in PARTS.values() for name in _fields(part)]
        for name in flat:
            if name not in known:
                raise unknown("field of config.data", name, known)
        made: dict[str, Any] = {
            name: section(part, {key: flat[key] for key in _fields(part) if key in flat}, name="data")
            for name, part in PARTS.items()
        }
        return cls(**made)

    def replace(self, **fields: Any) -> "DataOptions":
        """Return a copy with fields of any part changed."""
        return DataOptions.of(self.to_dict() | fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the flat section."""
        return {name: getattr(getattr(self, key), name) for key, part in PARTS.items() for name in _fields(part)}


PARTS = {"input": InputSpec, "feed": FeedOptions, "augment": Augmentation}
"""Attribute of `DataOptions` -> its class."""


def _fields(part: type) -> list[str]:
    return [field.name for field in dataclasses.fields(part)]
