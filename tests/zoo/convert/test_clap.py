"""CLAP: equal to transformers on tiny models from a sound file and a string, without and with fusion; refusals."""

import json
import wave

import numpy as np
import pytest
from flax import nnx
from public_models import converted, model_of, outputs, source, unit
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.data.batches.clip_graph import ClipGraph
from twinreel.data.options import DataOptions
from twinreel.encode.embed.encoder import Encoder
from twinreel.models.layers.decibels import decibel_mel
from twinreel.models.towers.htsat import filled_up
from twinreel.zoo.bundle import write_bundle
from twinreel.zoo.convert.clap import table
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import to_tensors
from twinreel.zoo.load import locate

ATOL = 1e-5  # of unit rows; transformers and ours differ by 2e-6


def sound(samples, *, seed):
    """As `golden/weights/make_clap.py` makes it."""
    i = np.arange(samples, dtype=np.int64)
    noise = (i * i // (113 + seed) + 7919 * i) % 4001 - 2000
    return (noise * (1 + i % 9600 // 2400) + (i * 37) % 601).astype(np.int16)


@pytest.fixture(scope="module", params=["unfused", "fused"])
def clap(request, tmp_path_factory):
    name = f"clap/{request.param}"
    return name, *converted(name, tmp_path_factory.mktemp("clap") / "source")


@pytest.fixture
def files(tmp_path):
    """WAV files of 48 kHz."""
    paths = [tmp_path / f"{seed}.wav" for seed in range(3)]
    for seed, length in enumerate(outputs("clap/unfused")["lengths"]):
        with wave.open(str(paths[seed]), "wb") as file:
            file.setparams((1, 2, 48_000, 0, "NONE", ""))
            file.writeframes(sound(int(length), seed=seed).tobytes())
    return paths


def test_files_and_strings_give_the_public_numbers(clap, files):
    name, made, model = clap
    wanted, encoder = outputs(name), Encoder(spec=made.spec, model=model)
    assert made.family == "clap" and list(made.spec.towers) == ["audio", "text"]
    assert (made.spec.input.audio_rate, made.spec.input.audio_samples) == (48_000, 96_000)
    np.testing.assert_allclose(encoder.encode_audio(files), unit(wanted["audio"]), atol=ATOL)
    texts = encoder.encode_text([str(text) for text in wanted["texts"]])
    np.testing.assert_allclose(texts, unit(wanted["text"]), atol=ATOL)
    assert any("logit_scale_t" in note for note in made.notes)
    with pytest.raises(UserError, match=r"no video tower \(it has: audio, text\)"):
        encoder.encode_video([files[0]])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_spectrogram_is_that_of_the_feature_extractor(clap, seed):
    """Both mel scales, and sound that is repeated; every tenth frame, in decibels."""
    name, _, model = clap
    wanted, tower = outputs(name), model.audio
    length = int(wanted["lengths"][seed])
    rows = np.zeros((1, 96_000), np.float32)
    rows[0, :length] = sound(length, seed=seed) / np.float32(32_768)
    full = filled_up(rows, lengths=np.array([length], np.int32), padding="repeatpad")
    found = decibel_mel(full, **dict(tower.sound))[0, ::10]
    np.testing.assert_allclose(found, wanted["mel"][seed], atol=2e-3)


@pytest.mark.parametrize(
    ("padding", "wanted"), [("pad", "abc00000"), ("repeat", "abcabcab"), ("repeatpad", "abcabc00")]
)
def test_short_sound_is_filled_up(padding, wanted):
    sounds, lengths = np.arange(1, 9, dtype=np.float32)[None].repeat(3, 0), np.array([3, 0, 8], np.int32)
    found = np.asarray(filled_up(sounds, lengths=lengths, padding=padding))
    assert found[0].tolist() == [float("0abc".index(letter)) for letter in wanted]
    assert not found[1].any()
    np.testing.assert_array_equal(found[2], sounds[2])


def test_records_of_16_khz_are_taken_and_a_row_without_sound_gives_zeros(tmp_path):
    """A third of the rate, upsampled: what has no higher frequencies sounds the same."""
    _, model = converted("clap/unfused", tmp_path / "source")
    made = convert(tmp_path / "source", options={"audio_rate": "16000"})
    time = np.arange(96_000) / 48_000
    low = np.round(8000 * np.sin(2 * np.pi * 440 * time) + 3000 * np.sin(2 * np.pi * 1330 * time)).astype(np.int16)
    low, lengths = np.stack([low, low]), np.array([96_000, 0], np.int32)

    @nnx.jit
    def vectors(model, sound, lengths):
        return model.audio(sound, lengths=lengths)

    found, slow = vectors(model, low, lengths), vectors(model_of(made), low[:, ::3], lengths // 3)
    assert not found[1].any() and not slow[1].any()
    assert unit(found[:1])[0] @ unit(slow[:1])[0] > 0.999
    data = {"dir": "x", "batch_size": 2, "audio_seconds": 2.0, "num_frames": 0, "eval_video": "resize(8)"}
    with pytest.raises(UserError, match=r"audio_rate=48000, but records hold sound of 16000 Hz"):
        ClipGraph.of(DataOptions.of(data | {"audio_rate": 48_000}), train=True)
    assert ClipGraph.of(DataOptions.of(data), train=True).audio_samples == made.spec.input.audio_samples == 32_000


def test_a_bundle_and_the_table_both_ways(clap, tmp_path):
    name, made, _ = clap
    write_bundle(tmp_path / "bundle", spec=made.spec, params=made.params)
    assert locate(tmp_path / "bundle").spec == made.spec
    towers = {side: dict(tower) for side, tower in made.spec.towers.items()}
    written = to_tensors(made.params, rules=table(audio=towers["audio"], text=towers["text"], skipped=2))
    read = load_file(source(name, tmp_path / "source") / "model.safetensors")
    buffers = ("position_ids", "token_type_ids", "position_index", "num_batches_tracked", "logit_scale_t")
    kept = {key: value for key, value in read.items() if not key.endswith(buffers)}
    assert written.keys() == kept.keys()
    for key, value in written.items():
        rows = slice(2, None) if key.endswith("position_embeddings.weight") else slice(None)  # two stand for padding
        np.testing.assert_array_equal(value.ravel() if value.ndim == 0 else value[rows], np.atleast_1d(kept[key])[rows])


BAD_CONFIGS = {
    r"hidden_act": {"audio_config": {"hidden_act": "snake"}},
    r"one side of a square": {"audio_config": {"patch_size": [4, 2]}},
    r"fusion_type='channel_map'": {"audio_config": {"enable_fusion": True, "fusion_type": "channel_map"}},
    r"'patch_embed_input_channels': 4": {"audio_config": {"patch_embed_input_channels": 4}},
    r"side=48 must be a multiple of mels=16, and of patch=4 times window=4 times 4": {
        "audio_config": {"spec_size": 48}
    },
    r"projection_hidden_act": {"projection_hidden_act": "gelu"},
    r"(?s)contradict its config.*text_projection/out/kernel": {"projection_dim": 16},
    r"has 263 ids, its text tower embeddings for 200": {"text_config": {"vocab_size": 200}},
}


@pytest.mark.parametrize("message", BAD_CONFIGS)
def test_configs_that_do_not_fit(message, tmp_path):
    folder = source("clap/unfused", tmp_path / "source")
    config = json.loads((folder / "config.json").read_text())
    for key, value in BAD_CONFIGS[message].items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        convert(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling_rate": 16_000}, "sampling_rate"),
        ({"feature_size": 64}, "'num_mel_bins': 64"),
        ({"truncation": "cut"}, "truncation"),
        ({"padding": "mirror"}, r"config\.model\.audio\.padding"),
        ({"max_length_s": 3}, r"is 301 frames.*at most 256"),
    ],
)
def test_feature_extractors_that_do_not_fit(change, message, tmp_path):
    folder = source("clap/unfused", tmp_path / "source")
    about = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(about | change))
    with pytest.raises(UserError, match=message):
        convert(folder)


def test_missing_and_unknown_tensors(tmp_path):
    folder = source("clap/fused", tmp_path / "source")
    tensors = load_file(folder / "model.safetensors")
    gone = "audio_model.audio_encoder.patch_embed.mel_conv2d.weight"
    save_file({key: value for key, value in tensors.items() if key != gone}, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"lacks {gone}"):
        convert(folder)
    config = json.loads((folder / "config.json").read_text())
    config["audio_config"]["enable_fusion"] = False
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"has audio_model\.audio_encoder\.patch_embed\.fusion_model.*, which no model"):
        convert(folder)
