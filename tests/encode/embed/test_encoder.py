"""The encoder: shares of rows on each device, equal results for any batch, files and records alike."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.base.section import section
from twinreel.data.batches.records import Records
from twinreel.data.options import InputSpec
from twinreel.data.prepare.prepare import prepare
from twinreel.data.text.tokenizer import load_tokenizer
from twinreel.demo import moving_shapes
from twinreel.encode.devices.rows import embed_on_devices, placed_on, shares
from twinreel.encode.embed.encoder import Encoder, load
from twinreel.engine.sharding.mesh import make_mesh, put_batch
from twinreel.evaluate.embedding.embed import embed_split
from twinreel.evaluate.embedding.loaded import LoadedSplit
from twinreel.zoo.build import build
from twinreel.zoo.spec import ModelOptions

TOKENIZER = load_tokenizer(Path(__file__).parents[2] / "golden" / "tokenizers" / "clip_fast")
CLIPS = 9
MODEL = {
    "embed_dim": 6,
    "video": {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 1},
    "text": {"width": 8, "depth": 1, "heads": 2},
    "audio": {"mels": 16, "width": 8, "depth": 1, "heads": 2},
}


@pytest.fixture(scope="module")
def parts():
    """The spec and the model."""
    options = section(ModelOptions, MODEL, name="model")
    given = InputSpec(
        num_frames=4,
        eval_video="resize_short(16)|center_crop(16)",
        context_length=16,
        audio_seconds=0.5,
        decode={"fps": 6.0, "short_side": 32},
    )
    spec = options.spec(input=given, vocab_size=TOKENIZER.vocab_size).replace(tokenizer=TOKENIZER.to_meta())
    return spec, build(spec, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def encoder(parts):
    spec, model = parts
    return Encoder(spec=spec, model=model)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Nine MP4 files, and the folder of their records."""
    source = tmp_path_factory.mktemp("films")
    manifest = moving_shapes.write(source, train=2, val=2, test=CLIPS, size=32, fps=6, workers=1, progress=False)
    prepare(manifest, out=source / "prepared", fps=6, short_side=32, audio=True, workers=1)
    records = Records(source / "prepared")
    return [source / row["file"] for row in records.rows("test")], records


def test_each_of_eight_devices_computes_an_eighth_of_the_rows(parts):
    video = np.random.default_rng(0).integers(0, 256, (32, 4, 16, 16, 3), dtype=np.uint8)
    flops = {}
    for devices in (jax.devices(), jax.devices()[:1]):
        mesh = make_mesh(devices=devices)
        graph, state = nnx.split(parts[1])
        state = placed_on(mesh, state)
        rows = put_batch({"video": video}, mesh=mesh)
        shapes = {shard.data.shape[0] for shard in rows["video"].addressable_shards}
        assert shapes == {32 // len(devices)}
        lowered = embed_on_devices.lower(state, rows, graph=graph, side="video", mesh=mesh)
        flops[len(devices)] = lowered.compile().cost_analysis()["flops"]  # of one device
    assert flops[8] < 1.2 * flops[1] / 8


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_results_do_not_depend_on_the_batch(encoder, parts, batch_size):
    video = np.random.default_rng(1).integers(0, 256, (11, 4, 16, 16, 3), dtype=np.uint8)
    got = encoder.encode_video_arrays(video, batch_size=batch_size)
    assert got.dtype == np.float32 and got.shape == (11, 6)
    np.testing.assert_allclose(got, parts[1].encode_video(jnp.asarray(video)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-5)


def test_strings_ids_and_sound(encoder, parts):
    texts = ["a dog", "two people shake hands", ""]
    ids, mask, _ = TOKENIZER.encode(texts, context_length=16)
    wanted = parts[1].encode_text(jnp.asarray(ids), mask=jnp.asarray(mask))
    np.testing.assert_allclose(encoder.encode_text(texts), wanted, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_text_ids(ids, mask=mask, batch_size=2), wanted, atol=1e-5)
    assert encoder.encode_text([]).shape == (0, 6)
    sound = np.random.default_rng(2).integers(-9999, 9999, (3, 8000), dtype=np.int16)
    np.testing.assert_allclose(encoder.encode_audio_arrays(sound), parts[1].encode_audio(jnp.asarray(sound)), atol=1e-5)


def test_without_a_tokenizer_ids_and_video_are_encoded(encoder, parts):
    spec, model = parts
    bare = Encoder(spec=spec.replace(tokenizer={}), model=model)
    ids, mask, _ = TOKENIZER.encode(["a red square"], context_length=16)
    np.testing.assert_array_equal(bare.encode_text_ids(ids, mask=mask), encoder.encode_text_ids(ids, mask=mask))
    for call in (lambda: bare.encode_text(["a red square"]), lambda: bare.tokenizer):
        with pytest.raises(UserError, match=r"no tokenizer .* encode_text_ids"):
            call()


def test_files_are_embedded_as_their_records_are(encoder, films):
    files, records = films
    found = embed_split(encoder, loaded=LoadedSplit(records, split="test"), batch_size=4, progress=False)
    np.testing.assert_allclose(encoder.encode_video(files, batch_size=4, workers=1), found.video, atol=2e-3)
    assert encoder.encode_audio(files[:3]).shape == (3, 6)


def test_views_are_averaged(encoder):
    video = np.random.default_rng(3).integers(0, 256, (2, 3, 4, 16, 16, 3), dtype=np.uint8)
    each = np.stack([encoder.encode_video_arrays(video[:, v]) for v in range(3)])
    mean = each.mean(axis=0)
    wanted = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_video_arrays(video), wanted, atol=1e-5)


def test_a_bundle_gives_the_same_embeddings(encoder, tmp_path):
    folder = encoder.save(tmp_path / "bundle")
    again = load(folder)
    texts = ["a red square falls"]
    np.testing.assert_array_equal(again.encode_text(texts), encoder.encode_text(texts))
    assert again.spec == encoder.spec and again.source == str(folder)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode_text("a dog"), r"encode_text wants a list.*encode_text\(\['a dog'\]\)"),
        (lambda e: e.encode_video("a.mp4"), r"encode_video wants a list"),
        (lambda e: e.encode_video(["/nowhere/a.mp4"]), r"/nowhere/a\.mp4 cannot be encoded: file does not exist"),
        (lambda e: e.encode_audio(["/nowhere/a.wav"]), r"/nowhere/a\.wav cannot be encoded"),
        (lambda e: e.encode_video_arrays(np.zeros((1, 4, 3, 16, 16), np.uint8)), "channels last"),
        (lambda e: e.encode_video_arrays(np.zeros((1, 4, 16, 16, 3), np.float32)), "wanted uint8 pixels"),
        (lambda e: e.encode_text_ids(np.zeros((1, 4), int), mask=np.ones((1, 3), bool)), r"shape \[n,L\]"),
        (lambda e: e.encode_audio_arrays(np.zeros((1, 8000), np.float32)), "wanted int16"),
        (lambda e: e.encode_text(["a"], batch_size=0), "batch_size=0 must be at least 1"),
    ],
)
def test_wrong_input_is_named(encoder, call, message):
    with pytest.raises(UserError, match=message):
        call(encoder)


@pytest.mark.parametrize(("total", "batch_size"), [(0, 4), (4, 4), (9, 4)])
def test_shares_cover_all_rows_once(total, batch_size):
    rows = [list(range(total))[own] for _, own in shares(total, batch_size=batch_size)]
    assert list(itertools.chain(*rows)) == list(range(total))


def test_a_model_without_sound_says_so(parts):
    spec, model = parts
    silent = Encoder(spec=spec.replace(towers={k: v for k, v in spec.towers.items() if k != "audio"}), model=model)
    with pytest.raises(UserError, match=r"no audio tower \(it has: video, text\)"):
        silent.encode_audio_arrays(np.zeros((1, 8000), np.int16))
