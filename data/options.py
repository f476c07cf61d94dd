"""The settings of the input pipeline (`config.data`), readable where tensorflow is not installed."""

import dataclasses

SAMPLE_RATE = 16_000  # Hz, of the sound in records and batches


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipData:
    """From prepared records to batches.

    Attributes:
      dir: folder that `twinreel prepare` made.
      batch_size: rows of the global batch, over all processes.
      num_frames: frames T of a clip.
      train_split: split to train on.
      eval_split: split to evaluate on during training; "" for none.
      train_sampling: how frame indices are drawn for training, a name of `sampling.SAMPLERS`.
      eval_sampling: the same for evaluation.
      train_video: preprocessing for training, see `preprocess.OPS`; ends in square frames.
      eval_video: the same for evaluation.
      text: text cleaning, see `text.TEXT_OPS`; "" for none.
      context_length: tokens L of a text, begin and end included; longer ones are cut and counted.
      audio_seconds: seconds of sound in a batch; 0 for a batch without sound.
      group_size: clips of one record `group` that stay together in one global batch (hard negatives).
      tokenizer: "train" to train SentencePiece on the train captions, or the path of a `.model` file.
      vocab_size: the largest vocabulary when it is trained.
      num_threads: threads for decoding; 0 for one per core.
      prefetch: batches made ahead.
    """

    dir: str
    batch_size: int
    num_frames: int = 8
    train_split: str = "train"
    eval_split: str = "val"
    train_sampling: str = "uniform_jitter"
    eval_sampling: str = "uniform"
    train_video: str = "random_resized_crop(224)|flip_lr"
    eval_video: str = "resize_short(224)|center_crop(224)"
    text: str = ""
    context_length: int = 64
    audio_seconds: float = 0.0
    group_size: int = 1
    tokenizer: str = "train"
    vocab_size: int = 8000
    num_threads: int = 0
    prefetch: int = 2

    @property
    def audio_samples(self) -> int:
        """Samples S of sound in a row of a batch; 0 for none."""
        return round(SAMPLE_RATE * self.audio_seconds)
