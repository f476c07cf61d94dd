"""NaFlex in training: films and a picture of several aspect ratios in one batch, from files to the loss."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from media_files import write_media
from PIL import Image
from public_models import GOLDEN, encode_text, encode_video, model_of, source

from twinreel.data.batches.pipeline import make_tokenizer, train_batches
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.options import DataOptions
from twinreel.data.prepare.prepare import prepare
from twinreel.encode.files import frames_of
from twinreel.pretrain.objective import Contrastive
from twinreel.zoo.convert.convert import convert

SIZES = ((32, 48), (48, 32), (16, 64), (40, 40))
"""Height and width of the films."""
TEXTS = ("a", "b dog", "the film", "one two", "running fast", "man", "zebra", "a picture")  # no two have equal ids
ROWS, FRAMES = len(TEXTS), 3


@pytest.fixture
def clips(tmp_path):
    """Seven films, two of most sizes, and a picture; caption -> file."""
    rng, files = np.random.default_rng(0), {}
    for number in range(ROWS - 1):
        height, width = SIZES[number % len(SIZES)]
        still = np.kron(rng.integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        frames = [np.roll(still, 8 * step, axis=1) for step in range(4)]
        files[TEXTS[number]] = write_media(tmp_path / f"{number}.mp4", frames)
    picture = np.kron(rng.integers(0, 256, (3, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "7.png")
    return files | {TEXTS[-1]: tmp_path / "7.png"}


def test_the_loss_of_a_batch_is_that_of_its_clips_one_by_one(clips, tmp_path):
    """A training batch from records against clips that are decoded, preprocessed and encoded by themselves."""
    rows = [{"clip_id": text, "path": str(path), "captions": [text], "split": "train"} for text, path in clips.items()]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(tmp_path / "clips.jsonl", out=tmp_path / "data", fps=0, short_side=0, audio=False, workers=1)
    folder = source("siglip2", tmp_path / "siglip2")
    for file in ("processors/siglip2/preprocessor_config.json", "siglip/spiece.model", "siglip/tokenizer_config.json"):
        shutil.copy(GOLDEN / file, folder)
    made = convert(folder)
    spec, model = made.spec, model_of(made)
    given = {"dir": str(tmp_path / "data"), "batch_size": ROWS, "tokenizer": str(folder), "num_frames": FRAMES}
    given |= {key: getattr(spec.input, key) for key in ("eval_video", "text", "context_length")}
    data = DataOptions.of(given)
    batch = next(train_batches(data, tokenizer=make_tokenizer(data), seed=0, start_step=0))
    assert batch["video"].shape == (ROWS, FRAMES, (16 + 1) * 8, 8, 3)
    options = {"embed_dim": spec.embed_dim, "projections": spec.projections, **spec.towers}
    objective = Contrastive(model=options, loss={}, input=spec.input, vocab_size=spec.towers["text"]["vocab_size"])
    arrays = {key: jax.numpy.asarray(batch[key]) for key in ("video", "text", "text_mask", "valid", "clip_index")}

    def loss(model):
        return objective.loss(model, arrays, rngs=None)[0]

    found, gradient = nnx.jit(nnx.value_and_grad(loss))(model)
    decode = DecodeOptions(fps=None, short_side=0, audio=False)
    alone = [frames_of(data.input, clip=decode_clip(path, options=decode)).astype(np.uint8) for path in clips.values()]
    grids = {tuple(frames[0, 0, :2, 0]) for frames in alone}
    assert len(grids) == 5, grids
    films = np.concatenate([encode_video(model, frames[None]) for frames in alone]).astype(np.float64)
    ids, mask, _ = make_tokenizer(data).encode(list(clips), context_length=spec.input.context_length)
    texts = np.asarray(encode_text(model, ids, mask), np.float64)
    logits = float(model.scale) * films @ texts.T
    log_p = [logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True)) for axis in (0, 1)]
    assert float(found) == pytest.approx(-np.mean([np.diag(one).mean() for one in log_p]), abs=1e-4)
    positions = gradient.video.image.space_position[...]
    assert np.isfinite(positions).all() and np.abs(positions).max() > 1e-6
