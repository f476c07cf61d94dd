"""Operations in time, views and sound augmentation on their way through the pipeline."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.pipeline import eval_batches, make_tokenizer, train_batches
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.options import DataOptions
from twinreel.data.prepare.prepare import prepare
from twinreel.encode.media.files import frames_of

LEVELS = [20, 50, 80, 110, 140, 170, 200, 230]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, media):
    """Three clips of eight plain frames, each brighter than the one before, and a tone."""
    root = tmp_path_factory.mktemp("moving")
    clips = []
    for i in range(3):
        media.write(root / f"{i}.mp4", media.grey(*LEVELS, size=(48, 64)), sound=media.tone(1.0, hertz=300))
        clips.append(Clip(clip_id=str(i), path=f"{i}.mp4", captions=(f"clip {i}",), split="train"))
    write_manifest(root / "clips.jsonl", clips=clips)
    prepare(root / "clips.jsonl", out=root / "data", fps=0, short_side=0, workers=1)
    return root / "data"


def options(folder, **changes) -> DataOptions:
    given = {"dir": str(folder), "batch_size": 3, "num_frames": 4, "train_video": "center_crop(32)", "num_threads": 2}
    given |= {"eval_video": "center_crop(32)", "train_sampling": "uniform", "vocab_size": 300, "context_length": 16}
    return DataOptions.of(given | changes)


def first(folder, **changes) -> dict[str, np.ndarray]:
    data = options(folder, **changes)
    batches = train_batches(data, tokenizer=make_tokenizer(data), seed=0, start_step=0)
    batch = next(batches)
    batches.close()
    return batch


def test_operations_in_time_choose_other_frames(folder):
    plain, backwards, frozen = (
        first(folder, train_video=f"center_crop(32){more}")["video"]
        for more in ("", "|reverse(1)", "|frame_dropout(1)")
    )
    np.testing.assert_array_equal(backwards, plain[:, ::-1])
    np.testing.assert_array_equal(frozen, np.repeat(plain[:, :1], 4, axis=1))
    grey = plain.mean(axis=(2, 3, 4))
    assert np.abs(grey - [LEVELS[i] for i in (1, 3, 5, 7)]).max() < 4 and (np.diff(grey) > 0).all()


def test_views_and_windows_share_an_axis(folder):
    data = options(folder, eval_video="three_crop(48)", eval_clips=2, num_frames=2)
    [batch] = list(eval_batches(data, tokenizer=make_tokenizer(data), split="train", batch_size=3))
    assert batch["video"].shape == (3, 6, 2, 48, 48, 3)
    grey = batch["video"].mean(axis=(3, 4, 5))
    assert np.abs(grey - np.tile(grey[:1, :2], (3, 3, 1))).max() < 1, "windows within each view"
    assert (grey[:, 1::2] > grey[:, ::2] + 50).all()
    clip = decode_clip(folder.parent / "0.mp4", options=DecodeOptions(fps=None, short_side=0))
    np.testing.assert_array_equal(frames_of(data.input, clip=clip, windows=2), batch["video"][0])
    with pytest.raises(UserError, match="several views, which are for evaluation"):
        first(folder, train_video="ten_crop(32)")


def test_sound_is_augmented_in_training_only(folder):
    declared = "gain(6)|shift(0.1)"
    plain, shifted, again = (first(folder, audio_seconds=0.5, train_audio=a) for a in ("", declared, declared))
    assert plain["audio_mask"].all() and (plain["audio"] != shifted["audio"]).mean() > 0.9
    np.testing.assert_array_equal(plain["video"], shifted["video"])
    np.testing.assert_array_equal(shifted["audio"], again["audio"])
    data = options(folder, audio_seconds=0.5, train_audio="gain(6)")
    [batch] = list(eval_batches(data, tokenizer=make_tokenizer(data), split="train", batch_size=3))
    [heard] = list(
        eval_batches(data.replace(train_audio=""), tokenizer=make_tokenizer(data), split="train", batch_size=3)
    )
    np.testing.assert_array_equal(batch["audio"], heard["audio"])
