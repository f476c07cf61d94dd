"""Recipes that begin with public weights: built on tiny models of the same families, down to the optimizer."""

import re

import jax
import numpy as np
import pytest
from language_models import gpt2_folder
from public_models import source

from twinreel.base.config import load_config
from twinreel.base.section import section
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.pretrain.begin import with_sources
from twinreel.pretrain.step_parts import make_parts


def built(name, folder, *overrides, **sources):
    """Return the config with its sources, and the parts of its step."""
    sources = {key: source(model, folder / model.replace("/", "_")) for key, model in sources.items()}
    flags = [f"model.{key.replace('__', '.')}={path}" for key, path in sources.items()]
    config, found = with_sources(load_config(name, overrides=[*flags, "data.batch_size=16", *overrides]))
    return config, found, make_parts(config)


def factors(config, parts):
    """Return path -> factor on the learning rate of each parameter."""
    optimizer = section(make_optimizer, config.optimizer, name="optimizer", steps=config.train.steps)
    return {path: np.asarray(value) for path, value in optimizer._factors(parts.builder.abstract.params).items()}


def test_clip4clip(tmp_path):
    overrides = ["model.video.heads=2", "data.context_length=12"]
    config, found, parts = built("clip4clip_b32:transformer", tmp_path, *overrides, source="clip/quick")
    assert config.data.num_frames == 12 and config.data.eval_video == "resize_short_bicubic(32)|center_crop(32)"
    assert found.input["pixel_mean"][0] == pytest.approx(0.4814547)
    assert parts.batch["video"].shape == (16, 12, 32, 32, 3) and parts.batch["text"].shape == (16, 12)
    rate = factors(config, parts)
    slow = {path for path, factor in rate.items() if np.allclose(factor, 1e-3)}
    assert slow == {path for path in rate if not path.startswith("video/time/")}
    assert parts.builder.abstract.params["video/image/embed/out/kernel"].dtype == np.float32


def test_siglip_video(tmp_path):
    config, _, parts = built("siglip_video", tmp_path, "model.video.heads=2", source="siglip")
    assert "bias" in parts.builder.abstract.params and config.data.text == "canonicalize"
    assert parts.batch["text"].shape == (16, 12)


def test_videoprism_retrieval(tmp_path):
    config, _, parts = built("videoprism_retrieval", tmp_path, source="videoprism/lvt")
    assert config.data.eval_sampling == "segment_starts"
    assert parts.batch["video"].shape[0] == 16


def test_lit(tmp_path):
    sources = {"video__source": "dinov2", "text__source": "bert"}
    _, found, parts = built("lit_dinov2_minilm", tmp_path, "data.context_length=12", **sources)
    assert parts.batch["features_dinov2"].shape == (16, 4, 48) and "video" not in parts.batch
    trained = parts.builder.abstract.params.keys() - parts.builder.abstract.others.keys()
    assert jax.tree.leaves(trained) and not [path for path in trained if path.startswith("text/")]
    assert "video_projection/kernel" in trained and "text_projection/kernel" in trained
    assert found.input["eval_video"] == "resize_bilinear(32,32)"


def test_captions_by_gpt2(tmp_path):
    folder = gpt2_folder(tmp_path / "gpt2")
    overrides = ["data.context_length=12", f"model.heads.captioning.source={folder}"]
    _, found, parts = built("caption_clip_gpt2", tmp_path, *overrides, source="clip/quick")
    assert set(found.origins) == {"video", "text", "heads.captioning"}
    assert parts.batch["caption_in"].shape == (16, 12)
    trained = parts.builder.abstract.params
    assert trained and all(
        re.match("heads/captioning/(decoder/layers|resampler|inputs|kinds)", path) for path in trained
    )
