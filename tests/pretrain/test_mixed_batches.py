"""Films of several lengths and aspect ratios and a picture in one batch: from files to the loss, and in encoding."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from media_files import write_media
from PIL import Image
from public_models import GOLDEN, encode_text, encode_video, model_of, source

from twinreel.data.batches.clip_graph import ClipGraph
from twinreel.data.batches.pipeline import make_tokenizer, train_batches
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.options import DataOptions
from twinreel.data.prepare.prepare import prepare
from twinreel.encode.embed.encoder import Encoder
from twinreel.encode.media.files import frames_of
from twinreel.pretrain.objective import Contrastive
from twinreel.zoo.convert.convert import convert

SIZES = ((32, 48), (48, 32), (16, 64), (40, 40))
"""Height and width of the films."""
TEXTS = ("a", "b dog", "the film", "one two", "running fast", "man", "zebra", "a picture")  # no two have equal ids
ROWS, FRAMES, FILM = len(TEXTS), 6, 3


@pytest.fixture
def clips(tmp_path):
    """Seven films of three frames, two of most sizes, and a picture; caption -> file."""
    rng, files = np.random.default_rng(0), {}
    for number in range(ROWS - 1):
        height, width = SIZES[number % len(SIZES)]
        still = np.kron(rng.integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        frames = [np.roll(still, 8 * step, axis=1) for step in range(FILM)]
        files[TEXTS[number]] = write_media(tmp_path / f"{number}.mp4", frames)
    picture = np.kron(rng.integers(0, 256, (3, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "7.png")
    return files | {TEXTS[-1]: tmp_path / "7.png"}


@pytest.fixture
def naflex(tmp_path):
    """A tiny SigLIP 2 for any aspect ratio, with a tokenizer."""
    folder = source("siglip2", tmp_path / "siglip2")
    for file in ("processors/siglip2/preprocessor_config.json", "siglip/spiece.model", "siglip/tokenizer_config.json"):
        shutil.copy(GOLDEN / file, folder)
    return folder


def test_a_batch_is_worth_what_its_clips_are_one_by_one(clips, naflex, tmp_path):
    """A training batch from records, with masks of patches and of frames, and files together in one call.

    Against clips that are decoded, preprocessed and encoded by themselves: the picture as one frame, films as three.
    """
    rows = [{"clip_id": text, "path": str(path), "captions": [text], "split": "train"} for text, path in clips.items()]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(tmp_path / "clips.jsonl", out=tmp_path / "data", fps=0, short_side=0, audio=False, workers=1)
    made = convert(naflex)
    model, input = model_of(made), dataclasses.replace(made.spec.input, num_frames=FRAMES, mask_frames=True, decode={})
    spec = made.spec.replace(input=input)
    given = {"dir": str(tmp_path / "data"), "batch_size": ROWS, "tokenizer": str(naflex)}
    data = DataOptions.of(given | dataclasses.asdict(input))
    batch = next(train_batches(data, tokenizer=make_tokenizer(data), seed=0, start_step=0))
    assert batch["video"].shape == (ROWS, FRAMES, (16 + 1) * 8, 8, 3)
    assert sorted(batch["video_mask"].sum(axis=1)) == [1, *[FILM] * (ROWS - 1)]

    decode = DecodeOptions(fps=None, short_side=0, audio=False)
    films = []
    for text, path in clips.items():
        own = dataclasses.replace(made.spec.input, num_frames=1 if text == TEXTS[-1] else FILM)
        films.append(encode_video(model, frames_of(own, clip=decode_clip(path, options=decode))[None]))
    films = np.concatenate(films).astype(np.float64)
    together = Encoder(spec=spec, model=model).encode_video(clips.values(), workers=1)
    np.testing.assert_allclose(together, films, atol=1e-5)

    options = {"embed_dim": spec.embed_dim, "projections": spec.projections, **spec.towers}
    objective = Contrastive(model=options, loss={}, input=input, vocab_size=spec.towers["text"]["vocab_size"])
    names = ("video", "video_mask", "text", "text_mask", "valid", "clip_index")
    arrays = {name: jax.numpy.asarray(batch[name]) for name in names}

    def loss(model):
        return objective.loss(model, arrays, rngs=None)[0]

    found, gradient = nnx.jit(nnx.value_and_grad(loss))(model)
    ids, mask, _ = make_tokenizer(data).encode(list(clips), context_length=input.context_length)
    logits = float(model.scale) * films @ np.asarray(encode_text(model, ids, mask), np.float64).T
    log_p = [logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True)) for axis in (0, 1)]
    assert float(found) == pytest.approx(-np.mean([np.diag(one).mean() for one in log_p]), abs=1e-4)
    positions = gradient.video.image.space_position[...]
    assert np.isfinite(positions).all() and np.abs(positions).max() > 1e-6


@pytest.mark.parametrize("windows", [1, 2])
def test_each_drawn_frame_stands_once_and_the_last_fills_up(windows):
    given = {"dir": "x", "batch_size": 1, "num_frames": 4, "eval_video": "resize_short(8)|three_crop(8)"}
    graph = ClipGraph.of(DataOptions.of(given | {"mask_frames": True, "eval_clips": windows}), train=False)
    uniforms = np.zeros(graph.draws, np.float32)
    drawn = graph.draw(times=np.arange(3 * windows) / 4, duration_s=0.75 * windows, uniforms=uniforms)
    assert drawn.frames.tolist() == [[0, 1, 2, 2], [0, 1, 2, 2, 3, 4, 5, 5]][windows - 1]
    real = graph.real_frames(drawn.frames)
    assert real.shape == graph.shape[:-3] == (3 * windows, 4)
    np.testing.assert_array_equal(real, np.tile([True, True, True, False], (3 * windows, 1)))
    long = graph.draw(times=np.arange(40) / 4, duration_s=10.0, uniforms=uniforms)
    assert graph.real_frames(long.frames).all()
