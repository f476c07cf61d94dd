"""Evaluation with a checkpoint that has heads: all pairs and first candidates against loops in NumPy float64."""

import dataclasses
import json

import jax
import joint_loops
import numpy as np
import pytest
from small_encoder import small_encoder
from tower_loops import randomised

from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.options import DataOptions, FeedOptions
from twinreel.evaluate import evaluate
from twinreel.evaluate.embedding import joint
from twinreel.evaluate.embedding.embed import Asked, embed_split
from twinreel.evaluate.embedding.embeddings import Embeddings
from twinreel.evaluate.embedding.loaded import LoadedSplit
from twinreel.evaluate.protocols.joint import first_candidates
from twinreel.evaluate.results import Further, measure
from twinreel.evaluate.training.opened import open_evaluation
from twinreel.evaluate.training.options import read_options

HEADS = {"text_pooling": {"kind": "x_pool", "block": 3}, "matching": {"kind": "cross_encoder", "depth": 1, "heads": 2}}


@pytest.fixture(scope="module")
def encoder():
    made = small_encoder(heads=HEADS)
    model = randomised(made.model, seed=6)
    made.model = model
    return made


@pytest.fixture(scope="module")
def loaded(tiny_data):
    return LoadedSplit(Records(tiny_data), split="test")


def pixels_of(loaded, encoder, *, windows=1):
    """The clips as the pipeline gives them, [m,V,T,H,W,3]."""
    from twinreel.data.batches.pipeline import eval_batches

    feed = FeedOptions(batch_size=8, dir=str(loaded.records.folder), eval_clips=windows)
    data = DataOptions(input=dataclasses.replace(encoder.input, audio_seconds=0.0), feed=feed)
    given = {"tokenizer": encoder.tokenizer, "split": "test", "batch_size": 8, "process_index": 0, "process_count": 1}
    [batch] = eval_batches(data, **given, records=loaded.records)
    video = batch["video"]
    return video if video.ndim == 6 else video[:, None]


def wanted_scores(encoder, loaded, *, windows=1):
    """Both heads' scores of all pairs, float64 [n,m]."""
    model, words = encoder.model, loaded.tokens(encoder)
    ids, mask = words.ids[words.place], words.mask[words.place]
    text, tokens = model.encode_with_tokens("text", inputs={"text": jax.numpy.asarray(ids), "text_mask": mask})
    views = np.moveaxis(pixels_of(loaded, encoder, windows=windows), 1, 0)
    seen = np.concatenate([model.encode_with_tokens("video", inputs={"video": view})[1] for view in views], axis=1)
    frames = model.clips(jax.numpy.asarray(seen)).frames
    pooled = [[joint_loops.x_pool(model.heads["text_pooling"], t, c) for c in frames] for t in text]
    match = model.heads["matching"]
    odds = [[joint_loops.cross_encoder(match, t[real], c) for c in seen] for t, real in zip(tokens, mask, strict=True)]
    return np.array(pooled), np.array(odds)


@pytest.mark.parametrize("windows", [1, 2])
def test_scores_are_those_of_loops(encoder, loaded, windows, monkeypatch):
    monkeypatch.setattr(joint, "_CLIPS", 3)  # several blocks of clips
    pooled, odds = wanted_scores(encoder, loaded, windows=windows)
    given = {
        "loaded": loaded,
        "batch_size": 8,
        "progress": False,
        "feed": FeedOptions(batch_size=1, eval_clips=windows),
    }
    found = embed_split(encoder, asked=Asked(joint={"x_pool": 0, "cross_encoder": 3}), **given).joint
    np.testing.assert_allclose(found["x_pool"].pairs, pooled, atol=1e-4)
    for side, wanted in (("videos", odds), ("texts", odds.T)):
        one = found["cross_encoder"].candidates[side]
        np.testing.assert_allclose(one.scores, np.take_along_axis(wanted, one.index, 1), rtol=1e-3, atol=1e-3)
        assert one.index.shape == (len(wanted), 3)
    few = embed_split(encoder, asked=Asked(joint={"x_pool": 2}), **given).joint["x_pool"].candidates["videos"]
    np.testing.assert_allclose(few.scores, np.take_along_axis(pooled, few.index, 1), atol=1e-4)


def test_the_command_adds_rows_and_the_file_gives_them_again(encoder, tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda path: encoder)
    flags = ["--rerank", "x_pool", "--rerank", "cross_encoder:k=3", "--json"]
    out = tmp_path / "out"
    argv = [
        "m",
        "--data",
        str(tiny_data),
        "--split",
        "test",
        "--out",
        str(out),
        "--batch_size",
        "8",
        "--thumbnails",
        "0",
    ]
    assert evaluate.main([*argv, *flags]) == 0
    rows = json.loads(capsys.readouterr().out)["reranked"]
    assert list(rows) == ["x_pool:k=all", "cross_encoder:k=3"]
    assert rows["cross_encoder:k=3"]["k"] == 3 and "video_to_text" in rows["x_pool:k=all"]
    assert "cross_encoder:k=3" in (out / "index.html").read_text()
    assert evaluate.main(["--embeddings", str(out / "embeddings.npz"), *flags]) == 0
    assert json.loads(capsys.readouterr().out)["reranked"] == rows
    kept = Embeddings.load(out / "embeddings.npz")
    plain = np.asarray(kept.text, np.float64) @ np.asarray(kept.video, np.float64).T
    np.testing.assert_array_equal(kept.joint["cross_encoder"].candidates["videos"].index, first_candidates(plain, k=3))


def test_a_checkpoint_without_the_head_is_refused_before_anything_is_embedded(loaded):
    plain = small_encoder()
    with pytest.raises(UserError, match=r"--rerank cross_encoder needs a model with the head 'matching', .* has: none"):
        embed_split(plain, loaded=loaded, asked=Asked(joint={"cross_encoder": 50}), progress=False)


def test_a_run_measures_by_its_heads_while_it_trains(encoder, loaded, tiny_data):
    """The figures of `config.evaluations` are the rows of `twinreel evaluate`."""
    methods = ["x_pool", "cross_encoder:k=3", "dsl:scale=10"]
    fields = {"protocol": "retrieval", "split": "test", "batch_size": 8, "captions": "all", "rerank": methods}
    [(name, options)] = read_options({"mine": fields}).items()
    data = DataOptions(input=encoder.input, feed=FeedOptions(batch_size=8, dir=str(tiny_data)))
    opened = open_evaluation(name, options, data=data, records=loaded.records)
    opened.check_model(encoder.spec)
    found = opened.measure(encoder)
    assert tuple(found) == opened.measure.results
    asked = Asked(joint={"x_pool": 0, "cross_encoder": 3})
    embedded = embed_split(encoder, loaded=loaded, batch_size=8, asked=asked, progress=False)
    wanted = measure(embedded, further=Further(rerank=methods))["reranked"]
    assert list(wanted) == ["x_pool:k=all", "cross_encoder:k=3", "dsl:scale=10"]
    for row, block in wanted.items():
        assert found[f"{row}/t2v_R@1"] == block["text_to_video"]["R@1"]
        assert found[f"{row}/v2t_MnR"] == block["video_to_text"]["MnR"]
    with pytest.raises(UserError, match=r"evaluations\.mine\.rerank: .*needs a model with the head 'text_pooling'"):
        opened.check_model(small_encoder().spec)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["cross_enocder"], "rerank 'cross_enocder'; did you mean 'cross_encoder'"),
        (["qb_norm"], "unknown method of rerank 'qb_norm'"),
        (["cross_encoder:k=0"], "k must be a number of candidates"),
        (["x_pool:q=3"], "parameter of --rerank x_pool: 'q'"),
    ],
)
def test_a_method_that_no_run_can_measure_is_refused_at_the_start(methods, message):
    with pytest.raises(UserError, match=message):
        read_options({"mine": {"protocol": "retrieval", "rerank": methods}})


def test_a_bundle_keeps_the_heads(encoder, tmp_path):
    from twinreel.encode.embed.encoder import load

    again = load(encoder.save(tmp_path / "bundle"))
    assert set(again.spec.joint_heads) == set(HEADS)
    for one, other in zip(*(jax.tree.leaves(jax.device_get(m.model.heads)) for m in (encoder, again)), strict=True):
        np.testing.assert_array_equal(one, other)
