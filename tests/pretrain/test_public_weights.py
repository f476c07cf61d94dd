"""Pretraining that begins with public weights: the model is theirs, tokenizer and all, with new layers over time."""

import shutil

import numpy as np
import pytest
from public_models import GOLDEN, outputs, source, unit

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.engine.keeping.init_from import InitFrom
from twinreel.pretrain.begin import read_params, with_sources
from twinreel.pretrain.pretrain import pretrain
from twinreel.zoo.load import locate


@pytest.fixture
def clip(tmp_path):
    return source("clip/quick", tmp_path / "clip")


def config_of(clip, tiny_data, **video):
    spec = locate(clip).spec
    config = load_config(
        "demo", overrides=[f"data.dir={tiny_data}", "data.batch_size=8", "data.group_size=2", "train.steps=1"]
    )
    given = {"pixel_mean": spec.input.pixel_mean, "pixel_std": spec.input.pixel_std, "context_length": 16}
    given |= {"num_frames": 4, "eval_video": "resize(32)", "train_video": "", "train_sampling": ""}
    with config.unlocked():
        config.data.update(given)
        config.model = {"embed_dim": spec.embed_dim, "projections": dict(spec.projections)}
        config.model.video = {**spec.towers["video"], **video}
        config.model.text = dict(spec.towers["text"])
        config.optimizer = {"name": "adamw", "lr": 1e-9, "warmup_steps": 0, "weight_decay": 0.0}
        config.train = {"steps": 1, "checkpoint_every": 1}
    return config


def test_a_video_model_begins_as_the_mean_of_picture_embeddings(clip, tiny_data, tmp_path, capsys):
    config = config_of(clip, tiny_data, over_time="transformer", depth=1, heads=2)
    pretrain(config, workdir=tmp_path / "run", start=InitFrom(checkpoint=clip, read=read_params))
    table = capsys.readouterr().err
    assert "video/image" in table and "loaded" in table and "video/time" in table and "new" in table
    wanted, encoder = outputs("clip/quick"), twinreel.load(tmp_path / "run")
    assert encoder.tokenizer.to_meta() == locate(clip).spec.tokenizer
    assert encoder.spec.origin["init"] == {"name": str(clip), **locate(clip).spec.origin}  # its licence comes along
    found = encoder.encode_video_arrays(np.concatenate([wanted["pixels"], wanted["pixels"][:1]])[None])  # T = 4
    mean = np.concatenate([wanted["image"], wanted["image"][:1]]).mean(axis=0)
    np.testing.assert_allclose(found[0], unit(mean), atol=1e-5)


def test_a_config_that_does_not_fit_the_weights(clip, tiny_data, tmp_path):
    config = config_of(clip, tiny_data)
    with config.unlocked():
        config.model.video.image.width = 32
        config.model.video.image.heads = 4
    start = InitFrom(checkpoint=clip, read=read_params)
    with pytest.raises(UserError, match=r"(?s)do not fit the new model.*video/image/class_token.*1 x 24.*1 x 32"):
        pretrain(config, workdir=tmp_path / "run", start=start)


def mixed(tmp_path, tiny_data, **optimizer):
    """A config whose video tower is DINOv2's and whose text tower is CLIP's, and the folders of both."""
    sources = {name: source(name, tmp_path / name.split("/")[0]) for name in ("dinov2", "clip/quick")}
    config = load_config(
        "demo", overrides=[f"data.dir={tiny_data}", "data.batch_size=8", "data.group_size=2", "train.steps=1"]
    )
    with config.unlocked():
        config.data = {"dir": str(tiny_data), "batch_size": 8, "num_frames": 2, "tokenizer": "train"}
        config.model = {"embed_dim": 12, "video": {"source": str(sources["dinov2"])}}
        config.model.text = {"source": str(sources["clip/quick"])}
        config.optimizer = {"name": "adamw", "lr": 1e-3, "warmup_steps": 0, "weight_decay": 0.0, **optimizer}
        config.train = {"steps": 1, "checkpoint_every": 1}
    return config, sources


def test_locked_image_tuning_from_two_sources(tiny_data, tmp_path, capsys):
    config, sources = mixed(tmp_path, tiny_data, frozen=("^video/",))
    pretrain(config, workdir=tmp_path / "run")
    table = capsys.readouterr().err
    assert "video_projection" in table and "new" in table and "text_projection" in table
    ours, image, text = (locate(path) for path in (tmp_path / "run", sources["dinov2"], sources["clip/quick"]))
    after, params = ours.params(), image.params()
    for path in params:  # locked
        np.testing.assert_array_equal(after[path], params[path], err_msg=path)
    moved = np.abs(after["text_projection/kernel"] - text.params()["text_projection/kernel"])
    assert 0 < moved.max() < 2e-3  # it began as the source's
    assert ours.spec.tokenizer == text.spec.tokenizer
    assert (ours.spec.input.pixel_mean, ours.spec.input.context_length) == (image.spec.input.pixel_mean, 16)
    assert ours.spec.origin["sources"]["video"]["licence"] == image.spec.origin["licence"]
    for folder in sources.values():  # a run that has begun needs them no more
        folder.rename(folder.with_name("moved-" + folder.name))
    config.train.steps = 2
    assert pretrain(config, workdir=tmp_path / "run").step == 2
    new = tmp_path / "new"
    with pytest.raises(UserError, match="dinov2"):
        pretrain(config, workdir=new)


def test_a_run_killed_before_its_first_checkpoint_begins_with_the_sources_again(tiny_data, tmp_path):
    config, sources = mixed(tmp_path, tiny_data)
    pretrain(config, workdir=tmp_path / "run")
    wanted = locate(tmp_path / "run").params()
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # config.json is there: the run has begun
    pretrain(config, workdir=tmp_path / "run")
    for path, value in locate(tmp_path / "run").params().items():
        np.testing.assert_array_equal(value, wanted[path], err_msg=path)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.rmtree(sources["dinov2"])
    with pytest.raises(UserError, match="dinov2"):
        pretrain(config, workdir=tmp_path / "run")


def test_a_resumed_run_takes_the_fields_that_may_change(tiny_data, tmp_path):
    config, sources = mixed(tmp_path, tiny_data)
    pretrain(config, workdir=tmp_path / "run")
    for folder in sources.values():
        shutil.rmtree(folder)
    with config.unlocked():
        config.model.remat, config.model.unroll = "full", 0
        config.model.video.over_time = "transformer"  # refused without --overwrite_config
        config.data.context_length = 8
    whole, found = with_sources(config, workdir=tmp_path / "run")
    assert (whole.model.remat, whole.model.unroll, whole.model.video.over_time) == ("full", 0, "transformer")
    assert (whole.data.context_length, whole.data.num_frames, found.name.count("dinov2")) == (8, 2, 1)
    assert whole.model.video.image.width == 24 and whole.model.text.positions == 16


def test_a_text_tower_without_tokenizer_files(tiny_data, tmp_path):
    config, sources = mixed(tmp_path, tiny_data)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (sources["clip/quick"] / name).unlink()
    with pytest.raises(UserError, match=r"has a text tower but no tokenizer; set config\.data\.tokenizer to the files"):
        pretrain(config, workdir=tmp_path / "run")
    config.data.tokenizer = str(GOLDEN.parent / "tokenizers" / "clip_fast")
    with pytest.raises(UserError, match=r"clip_fast' has \d+ ids, but the text tower of .* has embeddings for 520"):
        pretrain(config, workdir=tmp_path / "run")


SMALL_TEXT = {"width": 8, "heads": 2, "depth": 1}


def trained(config, *, tiny_data, tmp_path, name, model, **data):
    """A step of AdamW with weight decay on a public tower; returns its parameters before and after, and the spec."""
    folder = source(name, tmp_path / "public")
    with config.unlocked():
        config.evaluations = {}
        config.data = {"dir": str(tiny_data), "batch_size": 8, "tokenizer": "train", **data}
        config.model = {
            "embed_dim": 12,
            **{side: more or {"source": str(folder)} for side, more in model.items()},
        }
        config.loss = {"pairs": {"audio_text" if "audio" in model else "video_text": 1.0}}
        config.optimizer = {"name": "adamw", "lr": 1e-3, "warmup_steps": 0, "weight_decay": 0.1}
        config.train = {"steps": 1, "checkpoint_every": 1}
    pretrain(config, workdir=tmp_path / "run")
    ours = locate(tmp_path / "run")
    return locate(folder).params(), ours.params(), ours.spec


@pytest.mark.slow
def test_clap_trains_and_keeps_the_statistics_of_its_batch_norm(tiny_data, tmp_path):
    given = {"tiny_data": tiny_data, "tmp_path": tmp_path, "name": "clap/unfused"}
    before, after, spec = trained(load_config("demo"), **given, model={"audio": {}, "text": SMALL_TEXT})
    assert spec.towers["audio"]["family"] == "htsat" and spec.input.audio_rate == 16_000
    own = [path for path in before if path.startswith("audio/")]
    kept = {path for path in own if np.array_equal(before[path], after[path])}
    assert kept == {"audio/mel_norm/mean", "audio/mel_norm/variance"}  # neither gradient nor weight decay moves them
    moved = np.abs(after["audio/mel_norm/scale"] - before["audio/mel_norm/scale"])
    assert 0 < moved.max() < 5e-3
    assert all(np.isfinite(value).all() for value in after.values())


def test_naflex_trains_on_sequences_of_patches(tiny_data, tmp_path):
    config = load_config("demo")
    given = {"tiny_data": tiny_data, "tmp_path": tmp_path, "name": "siglip2", "num_frames": 2}
    before, after, spec = trained(config, **given, model={"video": {}, "text": SMALL_TEXT})
    assert spec.input.eval_video == "naflex(16,8)" and spec.towers["video"]["image"]["naflex"]
    own = [path for path in before if path.startswith("video/")]
    assert own and all(not np.array_equal(before[path], after[path]) for path in own)
    assert twinreel.load(tmp_path / "run").encode_video_arrays(np.zeros((1, 2, 17 * 8, 8, 3), np.uint8)).shape == (
        1,
        12,
    )
