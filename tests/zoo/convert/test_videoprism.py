"""VideoPrism: numbers of DeepMind's code and of transformers, both layouts, what the input must be, bad files.

Embeddings of unit length are compared to 1e-5 (measured: 2e-6), tokens to 2e-5 of the largest value (measured: 4e-6).
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.data.text.clean import text_cleaner
from twinreel.data.text.pieces import SentencePieceTokenizer
from twinreel.data.text.tokenizer import load_tokenizer, tokenizer_from_meta
from twinreel.engine.keeping.transfer import fill, shapes
from twinreel.zoo.build import abstract, build
from twinreel.zoo.convert import videoprism_tables
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import to_tensors
from twinreel.zoo.spec import ModelSpec

GOLDEN = Path(__file__).parents[2] / "golden" / "weights" / "videoprism"
ATOL = 1e-5


def outputs(name):
    with np.load(GOLDEN / name / "io.npz") as file:
        return {key: file[key] for key in file.files}


def source(name, folder):
    """Copy the model's own files, without what the tests compare with."""
    return Path(shutil.copytree(GOLDEN / name, folder, ignore=shutil.ignore_patterns("io.npz")))


def filled(made):
    model = build(made.spec, rngs=nnx.Rngs(0))
    fill(model, values=made.params)
    return model


def by_frame(tokens, like):
    """Tokens [B,T*N,D] frame by frame, as ours are."""
    return tokens.reshape(like.shape)


def close(found, wanted):
    """Compare tokens, relative to the largest."""
    np.testing.assert_allclose(found, by_frame(wanted, found), rtol=0, atol=2e-5 * np.abs(wanted).max())


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def lvt(tmp_path_factory):
    """The video-text model from DeepMind's npz, and what it gives for all inputs, in one program each."""
    made = convert(source("lvt", tmp_path_factory.mktemp("lvt") / "source"))
    model, wanted = filled(made), outputs("lvt")

    @nnx.jit
    def everything(model, frames, ids, mask, frame_mask):
        space, _ = model.video.spatial(frames)
        return {
            "spatial_features": space,
            "spatiotemporal_features": model.video.spatiotemporal(space),
            "padded_spatiotemporal_features": model.video.spatiotemporal(space, mask=frame_mask),
            "video_embeddings": model.encode_video(frames),
            "frame_embeddings": model.video.features(frames),
            "padded_video_embeddings": model.video(frames, mask=frame_mask),
            "text_embeddings": model.encode_text(ids, mask=mask),
        }

    text = wanted["text_token_ids"], wanted["text_paddings"] == 0
    frame_mask = wanted["frame_paddings"] == 0
    found = jax.tree.map(np.asarray, everything(model, wanted["frames"], *text, frame_mask))
    return made, model, wanted, found, lambda frames: everything(model, frames, *text, frame_mask)


def test_embeddings_are_those_of_deepminds_code(lvt):
    _, _, wanted, found, _ = lvt
    for name in ("video_embeddings", "text_embeddings"):
        np.testing.assert_allclose(found[name], wanted[name], atol=ATOL, err_msg=name)
    assert (wanted["text_paddings"] == 1).any(), "padding is among the texts"


def test_tokens_are_those_of_deepminds_code(lvt):
    _, _, wanted, found, _ = lvt
    for name in ("spatial_features", "spatiotemporal_features"):
        close(found[name], wanted[name])


def test_features_are_the_pooled_tokens_of_each_frame(lvt):
    _, _, wanted, found, _ = lvt
    np.testing.assert_allclose(unit(found["frame_embeddings"]), wanted["frame_embeddings"], atol=ATOL)


def test_other_frames_and_sides(lvt):
    """6 frames of 24 pixels where the positions are for 4 of 16."""
    _, model, wanted, _, _ = lvt
    frames = wanted["other_size_frames"]

    @nnx.jit
    def run(model, frames):
        return model.encode_video(frames), model.video.spatiotemporal(model.video.spatial(frames)[0])

    embeddings, tokens = run(model, frames)
    np.testing.assert_allclose(embeddings, wanted["other_size_video_embeddings"], atol=ATOL)
    close(tokens, wanted["other_size_spatiotemporal_features"])


def test_padding_of_frames(lvt):
    """Real frames are DeepMind's; its auxiliary encoder and pooler see the padding, ours do not."""
    _, model, wanted, found, again = lvt
    real = wanted["frame_paddings"] == 0
    tokens, theirs = found["padded_spatiotemporal_features"], wanted["padded_spatiotemporal_features"]
    close(tokens[real], by_frame(theirs, tokens)[real])
    pooled = model.video.pooler(model.video.auxiliary(theirs))[:, 0]
    np.testing.assert_allclose(unit(pooled), wanted["padded_video_embeddings"], atol=ATOL)
    ours = found["padded_video_embeddings"]
    np.testing.assert_allclose(unit(ours[2]), wanted["padded_video_embeddings"][2], atol=ATOL, err_msg="no padding")
    other = np.where(real[:, :, None, None, None], wanted["frames"], 255 - wanted["frames"])
    np.testing.assert_allclose(again(other)["padded_video_embeddings"], ours, atol=1e-5, rtol=1e-5)


def test_the_npz_is_read_both_ways(lvt):
    made, *_ = lvt
    rules = videoprism_tables.npz(video=dict(made.spec.towers["video"]), text=dict(made.spec.towers["text"]))
    written, read = to_tensors(made.params, rules=rules), np.load(GOLDEN / "lvt" / "params.npz")
    assert written.keys() == set(read.files)
    for name in read.files:
        np.testing.assert_array_equal(written[name], read[name], err_msg=name)


def test_the_input_is_that_of_the_public_code(lvt):
    made, *_ = lvt
    given = made.spec.input
    assert (given.num_frames, given.eval_sampling, given.context_length) == (4, "segment_starts", 64)
    assert (given.pixel_mean, given.pixel_std) == ((0, 0, 0), (1, 1, 1))
    assert given.eval_video == "resize_bicubic(16,16)"
    assert text_cleaner(given.text)("Hello,World!..") == "hello world."
    assert made.spec.embed_dim == 32 and made.spec.projections == {"video": "none", "text": "none"}
    for side in ("video", "text"):  # 1e-5 would change embeddings by less than they are compared to
        assert made.spec.towers[side]["block"]["norm_epsilon"] == 1e-6
    assert ModelSpec.from_dict(json.loads(json.dumps(made.spec.to_dict()))).towers == made.spec.towers


def test_another_number_of_frames_keeps_the_table_that_is_interpolated(lvt):
    """`config.data.num_frames` of a model that begins from these weights: nothing is resized by loading them."""
    spec = lvt[0].spec
    other = spec.replace(input=dataclasses.replace(spec.input, num_frames=6))
    target = shapes(abstract(other))
    assert {path: x.shape for path, x in target.items()} == {path: x.shape for path, x in lvt[0].params.items()}


def test_gradients_are_finite_and_reach_every_parameter(lvt):
    _, model, wanted, _, _ = lvt
    ids, mask = wanted["text_token_ids"], wanted["text_paddings"] == 0

    def loss(model):
        video, text = model.encode_video(wanted["frames"][:2]), model.encode_text(ids[:2], mask=mask[:2])
        return (video * text).sum() + (video[:1] * video[1:]).sum()

    gradients = nnx.jit(nnx.grad(loss))(model)
    for path, value in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(gradients)):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(value).all(), name
        assert np.abs(value).max() > 0 or "log_scale" in name, name


def test_an_encoder_alone_from_npz(tmp_path):
    made, wanted = convert(source("encoder", tmp_path / "source")), outputs("encoder")
    assert made.spec.embed_dim is None and list(made.spec.towers) == ["video"] and made.notes == ()
    model = filled(made)
    tokens = nnx.jit(lambda tower, frames: tower.tokens(frames)[0])(model.video, wanted["frames"])
    close(tokens, wanted["embeddings"])
    vector = nnx.jit(lambda tower, frames: tower(frames))(model.video, wanted["frames"])
    np.testing.assert_allclose(vector, wanted["embeddings"].mean(axis=1), atol=1e-5)


def test_an_encoder_alone_from_transformers(tmp_path):
    """Also with fewer and more frames and places, where its positions are resized with antialiasing."""
    made, wanted = convert(source("hf_encoder", tmp_path / "source")), outputs("hf_encoder")
    assert made.spec.embed_dim is None and made.spec.input.num_frames == 3
    run, model = nnx.jit(lambda tower, frames: tower.tokens(frames)[0]), filled(made)
    for size in ("", "smaller_", "larger_"):
        close(run(model.video, wanted[f"{size}frames"]), wanted[f"{size}embeddings"])


@pytest.mark.parametrize(("positions", "who"), [("computed", "deepmind"), ("stored", "transformers")])
def test_transformers_form_with_either_table_of_positions(positions, who, tmp_path):
    made = convert(source("hf_lvt", tmp_path / "source"), options={"text_positions": positions})
    wanted, other = outputs("hf_lvt"), {"deepmind": "transformers", "transformers": "deepmind"}[who]
    model, mask = filled(made), wanted["attention_mask"] == 1
    text = nnx.jit(lambda model, ids: model.encode_text(ids, mask=mask))(model, wanted["text_ids"])
    np.testing.assert_allclose(text, wanted[f"text_embeddings_as_{who}"], atol=ATOL)
    assert np.abs(text - wanted[f"text_embeddings_as_{other}"]).max() > 0.03
    assert any("text positions are" in note for note in made.notes)
    if positions == "computed":
        assert made.params.keys() == convert(source("hf_lvt", tmp_path / "default")).params.keys()
        assert "text/position" not in made.params
        video = nnx.jit(lambda model, frames: model.encode_video(frames))(model, wanted["frames"])
        np.testing.assert_allclose(video, wanted["video_embeddings"], atol=ATOL)
    towers = made.spec.towers
    rules = videoprism_tables.transformers(video=dict(towers["video"]), text=dict(towers["text"]), pair=True)
    written, read = to_tensors(made.params, rules=rules), load_file(GOLDEN / "hf_lvt" / "model.safetensors")
    assert read.keys() - written.keys() <= {"text_model.embeddings.position_ids", videoprism_tables.STORED_POSITIONS}
    assert all(np.array_equal(written[name], read[name]) for name in written)


def test_a_stored_table_that_is_deepminds_needs_no_note(tmp_path):
    folder = source("hf_lvt", tmp_path / "source")
    changed(folder, {videoprism_tables.STORED_POSITIONS: praxis_sinusoids(10, 32)})
    assert not any("text positions" in note for note in convert(folder).notes)


def praxis_sinusoids(places, width):
    """Praxis' PositionalEmbedding, place by place."""
    half = width // 2
    rates = [np.exp(-i * np.log(10_000) / (half - 1)) for i in range(half)]
    rows = [[np.sin(p * r) for r in rates] + [np.cos(p * r) for r in rates] for p in range(places)]
    return np.array(rows, np.float32)


def test_the_pooled_video_tower_of_transformers_alone(tmp_path):
    """`VideoPrismVideoModel`: the video half of the video-text model, under names without `video_model.`."""
    folder = source("hf_lvt", tmp_path / "source")
    tensors = load_file(folder / "model.safetensors")
    half = {name.removeprefix("video_model."): x for name, x in tensors.items() if name.startswith("video_model.")}
    save_file(half, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config["vision_config"]))
    made, whole = convert(folder), convert(source("hf_lvt", tmp_path / "whole"))
    assert made.spec.embed_dim is None
    assert made.params.keys() == {path for path in whole.params if path.startswith("video/")}
    assert all(np.array_equal(made.params[path], whole.params[path]) for path in made.params)


def changed(folder, tensors):
    """Replace tensors of a folder's weights, or drop those that are None."""
    path = next(path for path in folder.iterdir() if path.suffix in (".npz", ".safetensors"))
    held = dict(np.load(path)) if path.suffix == ".npz" else load_file(path)
    held = {name: x for name, x in (held | tensors).items() if x is not None}
    if path.suffix == ".npz":
        np.savez(path, **held)
    else:
        save_file(held, path)


POOLER = "params/contrastive_vision_pooler/pooling_attention"


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("lvt", {"params/text_encoder/cls_emb": None}, "lacks params/text_encoder/cls_emb"),
        ("lvt", {f"{POOLER}/query/b": None}, "lacks params/contrastive_vision_pooler/pooling_attention/query/b"),
        ("lvt", {"params/more": np.zeros(3)}, "has params/more, which no model"),
        ("lvt", {"params/vision_encoder/spatial_pos_emb/emb_var": np.zeros((15, 32))}, "15 places, wanted a square"),
        ("lvt", {"params/vision_encoder/temporal_pos_emb/emb_var": np.zeros(4)}, r"shape \(4,\), wanted 2 axes"),
        ("lvt", {"params/vision_encoder/spatial_ln/bias": np.zeros(31)}, r"video/space/norm/bias: .*\(31,\).*\(32,\)"),
        ("lvt", {f"{POOLER}/post/w": np.zeros((32, 3, 32))}, r"pooling_attention/post/w \(32, 3, 32\)"),
        ("lvt", {"params/text_encoder/cls_emb": np.zeros((1, 2, 32))}, r"cls_emb \(1, 2, 32\)"),
        ("encoder", {"params/temporal_ln/scale": None}, "lacks params/temporal_ln/scale"),
        ("hf_lvt", {"video_model.head.per_dim_scale": None}, "lacks video_model.head.per_dim_scale"),
        ("hf_lvt", {"video_model.head.classifier.weight": np.zeros((2, 32), np.float32)}, "has video_model.head.class"),
        ("hf_encoder", {"layernorm1.weight": np.zeros(23, np.float32)}, r"video/space/norm/scale: .*\(23,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(name, tensors, message, tmp_path):
    folder = source(name, tmp_path / "source")
    changed(folder, tensors)
    with pytest.raises(UserError, match=message):
        convert(folder)


def test_a_damaged_npz_is_no_traceback(tmp_path):
    folder = source("encoder", tmp_path / "source")
    path = folder / "params.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="no whole npz file"):
        convert(folder)
    at = whole.index(b"params/temporal_ln/scale.npy") + 200  # among its values
    path.write_bytes(whole[:at] + b"????" + whole[at + 4 :])
    with pytest.raises(UserError, match=r"'params/temporal_ln/scale' cannot be read: .*CRC"):
        convert(folder)
    path.write_bytes(whole)
    assert convert(folder).spec.embed_dim is None  # read anew, not from the damaged file


@pytest.mark.parametrize(
    ("side", "fields", "message"),
    [
        ("vision_config", {"hidden_act": "gleu"}, "hidden_act .*'gleu'"),
        ("text_config", {"hidden_act": "relu6"}, "hidden_act .*'relu6'"),
        ("text_config", {"qkv_bias": False}, "qkv_bias .* False"),
        ("vision_config", {"tubelet_size": [2, 4, 4]}, r"tubelet_size \[2, 4, 4\]"),
        ("vision_config", {"image_size": [16, 32]}, r"image_size \[16, 32\]"),
        ("vision_config", {"num_spatial_layers": 3}, "space/layers/.*contradict|contradict its config"),
        ("text_config", {"vocab_size": 95}, r"text/embedding: .*\(96, 32\).*\(95, 32\)"),
        ("vision_config", {"num_frames": None}, "lacks 'num_frames'"),
        ("", {"model_type": "videoprism_text_model"}, "is a videoprism_text_model"),
    ],
)
def test_configs_that_do_not_fit_are_named(side, fields, message, tmp_path):
    folder = source("hf_lvt", tmp_path / "source")
    config = json.loads((folder / "config.json").read_text())
    (config[side] if side else config).update(fields)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        convert(folder)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lvt", {"text_positions": "stored"}, "npz, which holds no text positions"),
        ("hf_encoder", {"text_positions": "stored"}, "without a text tower"),
        ("hf_lvt", {"text_positions": "store"}, "text_positions .*'store'; did you mean 'stored'"),
        ("hf_lvt", {"text_position": "stored"}, "option .*'text_position'; did you mean 'text_positions'"),
    ],
)
def test_options_that_do_not_fit_are_named(name, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        convert(source(name, tmp_path / "source"), options=options)


def pieces(size):
    captions = [f"a man {verb} the {noun} ." for verb in ("eats", "sees") for noun in ("apple", "dog", "ball")]
    return SentencePieceTokenizer.train(captions, vocab_size=size)


def test_a_sentencepiece_model_in_the_folder_is_taken_without_begin_and_end(tmp_path):
    folder, trained = source("lvt", tmp_path / "source"), pieces(300)
    (folder / "sentencepiece.model").write_bytes(trained.model)
    with pytest.raises(UserError, match=r"has 300 ids, its text tower embeddings for 96: .*another model"):
        convert(folder)
    changed(folder, {"params/text_encoder/token_emb/emb_var": np.zeros((400, 32), np.float32)})
    made = convert(folder)
    tokenizer = tokenizer_from_meta(dict(made.spec.tokenizer))
    ids, mask, _ = tokenizer.encode(["a man eats"], context_length=64)
    bare = [i for i in trained.encode(["a man eats"], context_length=64)[0][0] if i > 3]  # without begin and end
    assert ids[0].tolist() == bare + [0] * (64 - len(bare)) and mask.sum() == len(bare) and made.notes == ()
    (folder / "sentencepiece.model").rename(folder / "spiece.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "VideoPrismTokenizer"}))
    assert load_tokenizer(folder).to_meta() == convert(folder).spec.tokenizer


def test_an_npz_is_known_by_its_tensors_whatever_config_lies_beside_it(tmp_path):
    folder = source("encoder", tmp_path / "source")
    for config in ({"library_name": "videoprism"}, {"model_type": "videoprism_vision_model"}):
        (folder / "config.json").write_text(json.dumps(config))
        assert convert(folder).family == "videoprism"
    np.savez(folder / "params.npz", **{"params/other": np.zeros(2)})
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="of no family that twinreel reads"):
        convert(folder)


def test_without_a_tokenizer_the_conversion_says_where_it_is(lvt):
    made, *_ = lvt
    assert made.spec.tokenizer == {}
    assert any("cc_en.32000/sentencepiece.model" in note for note in made.notes)
