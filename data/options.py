"""The settings of the input pipeline (`config.data`), readable where tensorflow is not installed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

SAMPLE_RATE = 16_000  # Hz, of the sound in records and batches


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipData:
    """From prepared records to batches.

    Attributes:
      batch_size: rows of the global batch, over all processes.
      dir: folder that `twinreel prepare` made, or its URL. With a mixture: the one whose `eval_split` is evaluated on
        during training ("" = the mixture's first).
      mixture: several folders to train on instead of one: `{name: {"dir": ..., "weight": ..., "split": ...}}`; weight
        and split (default: `train_split`) may be left out.
      temperature: shares of a mixture without weights are proportional to `clips ** (1 / temperature)`.
      mix_by: "row" mixes sources within a batch, "batch" takes each batch from one source.
      num_frames: frames T of a clip; 0 for batches without video (precomputed features).
      train_split: split to train on.
      eval_split: split to evaluate on during training; "" for none.
      train_sampling: how frames are drawn for training, a name of `sampling.SAMPLERS` with its arguments.
      eval_sampling: the same for evaluation.
      window_seconds: draw from a window of this length instead of the whole clip: at a random place for training, in
        the middle for evaluation. Frames, sound and transcript share it. 0 = the whole clip.
      eval_clips: windows V of each clip at evaluation, evenly spread; their embeddings are averaged.
      train_video: preprocessing for training, see `preprocess.OPS`; ends in square frames.
      eval_video: the same for evaluation.
      train_audio: sound augmentation for training, see `transforms.sound.AUDIO_OPS`; "" for none.
      text: text cleaning, see `text.clean.TEXT_OPS`; "" for none.
      text_from: "captions"; "sentences" = one sentence of the transcript within the window; "transcript" = all of them.
      prompts: templates such as "a video of {}", of which training draws one for each text; () = the text as it is.
        Evaluation takes texts as they are.
      captions_per_clip: candidate captions C of a row (multiple-instance losses); above 1 `text` is [b,C,L].
      unique_captions: let no caption stand twice among the valid rows of a global batch (such rows are false
        negatives of each other): another caption of the clip is taken, and where all are taken the row is not valid.
      context_length: tokens L of a text, begin and end included; longer ones are cut and counted.
      audio_seconds: seconds of sound in a batch; 0 for a batch without sound.
      features: precomputed features to batch: `{modality: rows n}`; shorter ones are padded, of longer ones the rows at
        the middles of n equal parts of the window are taken.
      group_size: clips of one record `group` that stay together in one global batch (hard negatives).
      max_bad_fraction: share of a source's records that may turn out damaged; such rows are not valid.
      tokenizer: "train" to train SentencePiece on the train captions; else a SentencePiece `.model` file, a folder of
        Hugging Face tokenizer files, or `hf://ORGANISATION/NAME`.
      vocab_size: the largest vocabulary when it is trained.
      num_threads: threads for decoding; 0 for one per core.
      prefetch: batches made ahead.
      cache_dir: folder for local copies of what lies behind a URL (`dir=s3://bucket/prepared`); "" = `twinreel` in the
        user's cache folder. Not used for local folders.
      cache_gb: gigabytes that all copies in it may take, those unused for longest making room; 0 = no limit.
    """

    batch_size: int
    dir: str = ""
    mixture: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    temperature: float = 1.0
    mix_by: str = "row"
    num_frames: int = 8
    train_split: str = "train"
    eval_split: str = "val"
    train_sampling: str = "uniform_jitter"
    eval_sampling: str = "uniform"
    window_seconds: float = 0.0
    eval_clips: int = 1
    train_video: str = "random_resized_crop(224)|flip_lr"
    eval_video: str = "resize_short(224)|center_crop(224)"
    train_audio: str = ""
    text: str = ""
    text_from: str = "captions"
    prompts: tuple[str, ...] = ()
    captions_per_clip: int = 1
    unique_captions: bool = False
    context_length: int = 64
    audio_seconds: float = 0.0
    features: Mapping[str, int] = dataclasses.field(default_factory=dict)
    group_size: int = 1
    max_bad_fraction: float = 0.0
    tokenizer: str = "train"
    vocab_size: int = 8000
    num_threads: int = 0
    prefetch: int = 2
    cache_dir: str = ""
    cache_gb: float = 0.0

    @property
    def audio_samples(self) -> int:
        """Samples S of sound in a row of a batch; 0 for none."""
        return round(SAMPLE_RATE * self.audio_seconds)
