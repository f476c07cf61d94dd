"""MTEB's encoder around a model, with stand-ins of mteb's own classes; `make test-interop` runs the real ones."""

import importlib
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_encoder import small_encoder

import twinreel
from twinreel.base.errors import UserError
from twinreel.encode.media.decoded import frames_of_decoded

RATE = 16_000


class Decoder:
    """Stands in for torchcodec's `VideoDecoder`; the last `broken` frames cannot be decoded."""

    def __init__(self, frames, *, broken=0):
        self._frames, self._good = frames, len(frames) - broken
        self.metadata = SimpleNamespace(num_frames=len(frames), average_fps=5.0)

    def get_frames_at(self, indices):
        if max(indices) >= self._good:
            raise RuntimeError("Requested next frame while there are no more frames left to decode.")
        return SimpleNamespace(data=np.moveaxis(self._frames[indices], -1, 1))


class Loader(list):
    """Stands in for a `DataLoader`: the rows of a data set, two at a time, collated on the way."""

    collate_fn = staticmethod(lambda rows: rows)

    @property
    def dataset(self):
        return SimpleNamespace(features=dict.fromkeys(self[0]))

    def __iter__(self):
        rows = list(super().__iter__())
        return (self.collate_fn(rows[start : start + 2]) for start in range(0, len(rows), 2))


@pytest.fixture(scope="module")
def adapter():
    """The module, imported beside stand-ins of mteb's own."""
    made = {name: types.ModuleType(name) for name in ("mteb", "mteb.models", *_PARTS)}
    for name, values in _PARTS.items():
        vars(made[name]).update(values)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in made.items():
            patch.setitem(sys.modules, name, module)
        patch.delitem(sys.modules, "twinreel.evaluate.mteb", raising=False)
        yield importlib.import_module("twinreel.evaluate.mteb")
    sys.modules.pop("twinreel.evaluate.mteb", None)


_PARTS = {
    "mteb.models.abs_encoder": {"AbsEncoder": object},
    "mteb.models.model_meta": {"ModelMeta": SimpleNamespace, "ScoringFunction": SimpleNamespace(COSINE="cosine")},
}


@pytest.fixture(scope="module")
def encoder():
    return small_encoder()


@pytest.fixture(scope="module")
def videos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (count, 20, 24, 3), dtype=np.uint8) for count in (11, 3, 7)]


def wanted_video(encoder, videos):
    made = [frames_of_decoded(encoder.input, read=v.__getitem__, count=len(v), fps=5.0) for v in videos]
    return encoder.encode_video_arrays(np.stack(made))


def test_texts_and_videos_are_embedded_in_the_order_of_the_loader(adapter, encoder, videos):
    model = adapter.Model(encoder)
    texts = ["a dog", "A cat!", "two cats"]
    np.testing.assert_allclose(model.encode(Loader({"text": t} for t in texts)), encoder.encode_text(texts), atol=1e-6)
    found = model.encode(Loader({"video": Decoder(v), "id": "x"} for v in videos))
    np.testing.assert_allclose(found, wanted_video(encoder, videos), atol=1e-6)


def test_a_clip_ends_before_frames_that_cannot_be_decoded(adapter, encoder, videos):
    found = adapter.Model(encoder).encode(Loader([{"video": Decoder(videos[0], broken=2)}]))
    np.testing.assert_allclose(found, wanted_video(encoder, [videos[0][:-1]]), atol=1e-6)
    with pytest.raises(RuntimeError, match="no more frames"):
        adapter.Model(encoder).encode(Loader([{"video": Decoder(videos[1], broken=3)}]))


def test_columns_of_one_item_are_added_and_missing_ones_left_out(adapter, encoder, videos):
    wave = (np.sin(np.arange(12_000) / 9) / 2).astype(np.float32)
    sound = {"array": wave[None], "sampling_rate": RATE}
    rows = [{"video": Decoder(videos[0]), "audio": sound}, {"video": None, "audio": sound}]
    found = adapter.Model(encoder).encode(Loader(rows))
    middle = np.rint(wave[2000:10_000] * 2**15).astype(np.int16)[None]
    heard, seen = encoder.encode_audio_arrays(middle)[0], wanted_video(encoder, videos[:1])[0]
    np.testing.assert_allclose(found[1], heard, atol=1e-6)
    np.testing.assert_allclose(found[0], (heard + seen) / np.linalg.norm(heard + seen), atol=1e-6)
    with pytest.raises(UserError, match="item 1 of a batch has none of video, audio"):
        adapter.Model(encoder).encode(Loader([rows[0], {"video": None, "audio": None}]))


def test_sound_is_resampled(adapter):
    """A tone of 440 Hz at 44.1 kHz, two channels, is one at 16 kHz."""
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype(np.float32) / 2
    rows = [{"audio": {"array": np.stack([tone, tone]), "sampling_rate": 44_100}}]
    spec = small_encoder().input
    [found] = adapter.collate(rows, columns=["audio"], spec=spec)["audio"]
    wanted = 2**14 * np.sin(2 * np.pi * 440 * (np.arange(8000) + 4000) / RATE)
    assert found.dtype == np.int16 and np.abs(found - wanted).max() < 60


def test_a_fusion_takes_video_and_sound_together(adapter, videos):
    encoder = small_encoder(fusion={"kind": "attention", "modalities": ["video", "audio"]})
    sound = {"array": np.full(8000, 0.25, np.float32), "sampling_rate": RATE}
    rows = [{"video": Decoder(videos[0]), "audio": sound}, {"video": Decoder(videos[2]), "audio": None}]
    found = adapter.Model(encoder).encode(Loader(rows))
    frames = [
        frames_of_decoded(encoder.input, read=v.__getitem__, count=len(v), fps=5.0) for v in (videos[0], videos[2])
    ]
    heard = np.stack([np.full(8000, 2**13, np.int16), np.zeros(8000, np.int16)])
    wanted = encoder.encode_clip_arrays(np.stack(frames), audio=heard, lengths=np.array([8000, 0]))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_an_image_is_a_clip_of_one_frame(adapter, encoder, videos):
    picture = videos[0][0]
    found = adapter.Model(encoder).encode(Loader([{"image": Image.fromarray(picture)}]))
    np.testing.assert_allclose(found, wanted_video(encoder, [picture[None]]), atol=1e-6)


def test_what_the_model_is_stands_beside_the_results(adapter, encoder):
    meta = adapter.Model(encoder, name="me/mine").mteb_model_meta
    assert (meta.name, meta.framework, meta.embed_dim, meta.max_tokens) == ("me/mine", ["JAX"], 6, 16)
    assert meta.modalities == ["text", "image", "video", "audio"] and len(meta.revision) == 64
    assert meta.n_parameters * 4 / 2**20 == pytest.approx(meta.memory_usage_mb)


def test_a_task_without_a_column_of_the_model_is_refused(adapter, encoder):
    with pytest.raises(UserError, match="the task has the columns depth, and the model has towers for"):
        adapter.Model(encoder).encode(Loader([{"depth": 1}]))


def test_without_mteb_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb.models.abs_encoder", None)
    monkeypatch.delitem(sys.modules, "twinreel.evaluate.mteb", raising=False)
    with pytest.raises(UserError, match=r"pip install 'twinreel\[mteb\]'"):
        _ = twinreel.mteb
