"""From films with sound to fused embeddings: train a fused side, then embed records and files with the checkpoint."""

import json

import numpy as np
import pytest
from files import lines

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.prepare.prepare import prepare
from twinreel.encode.commands.encode import main
from twinreel.encode.embed.encoder import load
from twinreel.evaluate.embedding.embed import Asked, embed_split
from twinreel.evaluate.embedding.loaded import LoadedSplit
from twinreel.pretrain.check_records import check_sound
from twinreel.pretrain.pretrain import pretrain

PITCHES = {"low": 220.0, "high": 1760.0}
SHADES = {"black": 10, "grey": 120, "white": 245}
SILENT = "silent"


@pytest.fixture(scope="module")
def films(tmp_path_factory, media):
    """Nine films, of three shades by two pitches or silent; returns their folder."""
    folder, rows = tmp_path_factory.mktemp("films"), []
    for shade, level in SHADES.items():
        for pitch in (*PITCHES, SILENT):
            sound = None if pitch == SILENT else media.tone(1.0, hertz=PITCHES[pitch])
            name, caption = f"{shade}_{pitch}.mp4", f"a {shade} picture and a {pitch} tone"
            media.write(folder / name, media.grey(*[level] * 8, size=(32, 32)), fps=8, sound=sound)
            for split in ("train", "val"):
                rows.append({"clip_id": f"{name}/{split}", "path": name, "captions": [caption], "split": split})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(folder / "manifest.jsonl", out=folder / "data", fps=8.0, short_side=32, audio=True, workers=1)
    return folder


@pytest.fixture(scope="module")
def trained(films):
    """The workdir of thirty steps in which a batch has all nine films."""
    video = {
        "image_size": 16,
        "patch": 16,
        "stem": 0,
        "gradients": 0,
        "width": 16,
        "heads": 2,
        "depth": 1,
        "temporal_depth": 0,
    }
    sizes = {"width": 16, "heads": 2, "depth": 1}
    sound = {"family": "cnn", "mels": 16, "channels": (8, 16)}
    fields = {f"model.video.{key}": value for key, value in video.items()}
    fields |= {f"model.text.{key}": value for key, value in sizes.items()}
    fields |= {"model.audio": sound, "model.embed_dim": 8, "loss.pairs": {"video+audio_text": 1.0}}
    fields |= {"model.fusion": {"kind": "concat", "modalities": ("video", "audio")}}
    fields |= {"data.dir": str(films / "data"), "data.batch_size": 8, "data.group_size": 1, "data.num_frames": 2}
    fields |= {"data.foils_per_clip": 0, "data.pixel_mean": (0.5, 0.5, 0.5), "data.pixel_std": (0.5, 0.5, 0.5)}
    fields |= {"data.audio_seconds": 0.5, "data.train_video": "random_crop(16)", "data.eval_video": "center_crop(16)"}
    fields |= {"data.context_length": 24, "data.vocab_size": 400, "optimizer.lr": 0.01, "optimizer.warmup_steps": 2}
    fields |= {"train.steps": 40, "train.log_every": 1, "train.eval_every": 40, "train.checkpoint_every": 40}
    config = load_config("demo", overrides=[f"{key}={value!r}" for key, value in fields.items()])
    pretrain(config, workdir=films / "run")
    return films / "run"


def test_the_loss_falls_and_clips_are_evaluated_with_their_sound(trained):
    losses = [line["loss"] for line in lines(trained, "train")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
    assert {"accuracy_va2t", "accuracy_t2va"} <= set(lines(trained, "train")[-1])
    assert lines(trained, "eval")[-1]["val/t2v_R@1"] > 100 / 9


def test_files_are_embedded_as_their_records_are_and_silent_ones_by_their_pictures(trained, films, tmp_path):
    encoder, loaded = load(trained), LoadedSplit(Records(films / "data"), split="val")
    found = embed_split(encoder, loaded=loaded, batch_size=4, progress=False)
    assert found.protocol["clip_side"] == "video+audio"
    with pytest.raises(UserError, match=r"--clip_side.* 'vido'; did you mean 'video'"):
        embed_split(encoder, loaded=loaded, clip_side="vido")
    alone = embed_split(encoder, loaded=loaded, clip_side="video", batch_size=4, progress=False)
    assert alone.protocol["clip_side"] == "video" and np.abs(alone.video - found.video).max() > 0.1
    names = [row["clip_id"].split("/")[0] for row in found.rows]
    files = [films / name for name in names]
    clips = encoder.encode_clips(files, batch_size=4, workers=1)
    np.testing.assert_allclose(clips, found.video, atol=2e-2)  # prepared frames are JPEG twice
    by_name = dict(zip(names, clips, strict=True))
    for shade in SHADES:  # the pictures are alike, the sounds are not
        assert np.abs(by_name[f"{shade}_low.mp4"] - by_name[f"{shade}_high.mp4"]).max() > 1e-3
    video = np.zeros((2, 2, 16, 16, 3), np.uint8)
    sound = np.random.default_rng(0).integers(-9999, 9999, (2, 8000), dtype=np.int16)
    arrays = encoder.encode_clip_arrays(video, audio=sound, lengths=np.array([8000, 0], np.int32))
    other = encoder.encode_clip_arrays(video, audio=sound // 100, lengths=np.array([8000, 0], np.int32))
    np.testing.assert_allclose(arrays[1], other[1], atol=1e-6)
    assert np.abs(arrays[0] - other[0]).max() > 1e-3
    out = tmp_path / "clips.npz"
    assert main([str(trained), "--clip", str(files[0]), "--text", "a low tone", "--out", str(out)]) == 0
    with np.load(out) as file:
        np.testing.assert_allclose(file["clip"], clips[:1], atol=1e-5)
        assert file["clips"].tolist() == [str(files[0])]


def test_muted_films_are_embedded_as_silent_ones(trained, films):
    encoder, loaded = load(trained), LoadedSplit(Records(films / "data"), split="val")
    given = {"loaded": loaded, "batch_size": 4, "progress": False}
    found = embed_split(encoder, asked=Asked(controls=["muted", "swapped_sound"], pairs=["all"]), **given)
    place = {row["clip_id"].split("/")[0].removesuffix(".mp4"): number for number, row in enumerate(found.rows)}
    for shade in SHADES:
        silent = found.video[place[f"{shade}_{SILENT}"]]
        for pitch in PITCHES:
            row = place[f"{shade}_{pitch}"]
            np.testing.assert_allclose(found.controls["muted"][row], silent, atol=1e-5)
            swapped = [found.video[place[f"{shade}_{other}"]] for other in PITCHES]
            assert min(np.abs(found.controls["swapped_sound"][row] - one).max() for one in swapped) < 1e-2
    assert found.has_sound.sum() == 6 and found.further["controls"]["changed"]["muted"] == 6
    assert set(found.sides) == {"video", "audio"} and not found.sides["audio"][~found.has_sound].any()
    alone = embed_split(encoder, clip_side="video", **given)
    np.testing.assert_allclose(found.sides["video"], alone.video, atol=1e-5)
    sounds = encoder.encode_audio([films / f"black_{pitch}.mp4" for pitch in PITCHES], workers=1)
    rows = [place[f"black_{pitch}"] for pitch in PITCHES]
    np.testing.assert_allclose(found.sides["audio"][rows], sounds, atol=5e-3)  # records start where AAC does


def test_what_does_not_fit_is_named(trained, films):
    encoder = load(trained)
    video = np.zeros((2, 2, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match=r"wanted uint8 \[n,T,H,W,3\] and int16 \[n,S\]"):
        encoder.encode_clip_arrays(video, audio=np.zeros((3, 8000), np.int16))
    encoder.spec = encoder.spec.replace(fusion={})
    for call in (lambda: encoder.encode_clips([]), lambda: encoder.encode_clip_arrays(video, audio=video)):
        with pytest.raises(UserError, match=r"does not fuse video and audio \(config\.model\.fusion\)"):
            call()


def test_a_tower_for_sound_is_warned_of_clips_without_any(films, tmp_path):
    assert check_sound(Records(films / "data"), split="train") == ""
    silent = [line for line in (films / "manifest.jsonl").read_text().splitlines() if SILENT in line]
    (films / "silent.jsonl").write_text("\n".join(silent) + "\n")
    prepare(films / "silent.jsonl", out=tmp_path, fps=8.0, short_side=32, audio=True, workers=1)
    found = check_sound(Records(tmp_path), split="train")
    assert "no clip of split 'train'" in found and "config.model.audio learns nothing" in found
