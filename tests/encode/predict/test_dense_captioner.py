"""Events of films with captions: each is described as a clip of its own stretch of the film would be."""

import dataclasses

import numpy as np
import pytest
from small_encoder import drawn_encoder

from twinreel.base.errors import UserError
from twinreel.data.media.decode import decode_clip
from twinreel.data.media.listen import decode_sound
from twinreel.encode.embed.film import index_options
from twinreel.encode.films.events import EventOptions
from twinreel.encode.media.files import rows_of
from twinreel.encode.media.windows import part_of
from twinreel.encode.predict import dense_captioner
from twinreel.encode.predict.captioner import Captioner
from twinreel.encode.predict.dense_captioner import DenseCaptioner

HEADS = {"captioning": {"kind": "decoder", "sees": "patches", "width": 8, "depth": 1, "heads": 2}}
CUT = EventOptions(shortest_s=2.0, penalty=0.0)
"""Events of 2 s in a film of 6 s: embeddings of random towers are too much alike to be cut where scenes change."""


@pytest.fixture(scope="module")
def captioner():
    made = drawn_encoder(heads=HEADS)
    return Captioner(spec=made.spec, model=made.model, options={"max_tokens": 6})


@pytest.fixture(scope="module")
def film(tmp_path_factory, request):
    """Three scenes of 2 s, with a tone."""
    media, rng = request.getfixturevalue("media"), np.random.default_rng(0)
    scenes = [np.kron(rng.integers(0, 2, (2, 3, 3)), np.ones((16, 16, 1))) for _ in range(3)]
    frames = [(255 * scene).astype(np.uint8) for scene in scenes for _ in range(16)]
    return media.write(tmp_path_factory.mktemp("films") / "film.mp4", frames, sound=media.tone(6.0))


def by_itself(captioner, clip):
    """The caption of a decoded clip alone."""
    rows = {key: value[None] for key, value in rows_of(captioner.spec.input, clip=clip).items()}
    given = rows | {"clip_index": np.zeros(1, np.int64), "valid": np.ones(1, bool)}
    return next(iter(captioner.caption_rows(given, size=captioner.global_batch(8, total=8))))[2]


def test_events_of_a_film_are_described_from_their_own_frames(captioner, film):
    dense, ticks = DenseCaptioner(captioner, options=CUT), []
    [found] = dense.caption([film], batch_size=8, workers=1, tick=lambda *told: ticks.append(told))
    assert found["path"] == str(film) and found["duration_s"] == pytest.approx(6.0, abs=0.01)
    assert [one["start_s"] for one in found["events"]] == pytest.approx([0.0, 2.0, 4.0], abs=0.01)
    assert [one["end_s"] for one in found["events"]] == pytest.approx([2.0, 4.0, 6.0], abs=0.01)
    assert ticks[-1][:2] == (film, pytest.approx(6.0, abs=0.01))
    for one in found["events"]:
        options = index_options(captioner.spec.input)
        clip = decode_clip(film, options=options, start_s=one["start_s"], end_s=one["end_s"])
        alone = by_itself(captioner, clip)
        assert one["caption"] == alone["caption"] and one["score"] == pytest.approx(alone["score"], abs=1e-4)
    assert len({one["caption"] for one in found["events"]}) > 1


def test_clips_in_memory_give_what_their_files_give_whatever_the_batch(captioner, film):
    dense = DenseCaptioner(captioner, options=CUT)
    [wanted] = dense.caption([film], batch_size=8, workers=1)
    whole = decode_clip(film, options=index_options(captioner.spec.input))
    clips = [(7, whole), (3, part_of(whole, start_s=0.0, end_s=4.0))]
    for size in (8, 16):
        found = list(dense.caption_clips(clips, batch_size=size))
        assert [number for number, _ in found] == [7, 3]
        for (_, one), length in zip(found, (3, 2), strict=True):
            assert len(one["events"]) == length
            for got, other in zip(one["events"], wanted["events"], strict=False):
                assert got["caption"] == other["caption"] and got["score"] == pytest.approx(other["score"], abs=1e-3)


class Listener(Captioner):
    """Hears, and keeps what it is given."""

    def __init__(self, **given):
        super().__init__(**given)
        self.hears, self.given = True, []

    def caption_rows(self, rows, *, size, seed=0):
        self.given.append({key: value[rows["valid"]] for key, value in rows.items()})
        for number, valid in zip(rows["clip_index"], rows["valid"], strict=True):
            yield number, valid, {"caption": f"event {number}", "score": -1.0}


def test_a_model_that_hears_gets_the_middle_of_the_sound_of_each_event(captioner, film):
    listener = Listener(spec=captioner.spec, model=captioner.model)
    dense = DenseCaptioner(listener, options=CUT)
    [found] = dense.caption([film], batch_size=8, workers=1)
    [rows] = listener.given
    assert rows["audio_mask"].all() and rows["audio_samples"].tolist() == [8000] * 3
    for one, heard in zip(found["events"], rows["audio"], strict=True):
        middle = (one["start_s"] + one["end_s"]) / 2
        wanted = decode_sound(film, start_s=middle - 0.25, end_s=middle + 0.25)
        assert np.abs(heard.astype(int) - wanted).max() < 200
    listener.given.clear()
    silent = decode_clip(film, options=index_options(captioner.spec.input))
    assert len(dict(dense.caption_clips([(0, silent)]))[0]["events"]) == 3
    assert not listener.given[0]["audio_mask"].any() and not listener.given[0]["audio"].any()


def test_neighbours_with_the_same_caption_are_one_event(captioner, film, monkeypatch):
    texts = iter(["a", "a", "b"])

    def same(self, rows, *, size, seed=0):
        for number, valid in zip(rows["clip_index"], rows["valid"], strict=True):
            yield number, valid, {"caption": next(texts, ""), "score": -float(number), "others": []}

    monkeypatch.setattr(Captioner, "caption_rows", same)
    [found] = DenseCaptioner(captioner, options=CUT).caption([film], batch_size=8, workers=1)
    assert [one["caption"] for one in found["events"]] == ["a", "b"]
    assert found["events"][0] == {
        "start_s": 0.0,
        "end_s": pytest.approx(4.0, abs=0.01),
        "caption": "a",
        "score": pytest.approx(-0.5, abs=0.01),
    }


def test_long_events_are_decoded_with_fewer_frames_per_second(captioner, film, monkeypatch):
    monkeypatch.setattr(dense_captioner, "MOST_FRAMES", 5)
    seen, rows = [], dense_captioner.rows_of

    def counted(spec, *, clip):
        seen.append(len(clip.encoded))
        return rows(spec, clip=clip)

    monkeypatch.setattr(dense_captioner, "rows_of", counted)
    list(DenseCaptioner(captioner, options=CUT).caption([film], batch_size=8, workers=1))
    assert len(seen) == 3 and max(seen) <= 5


def test_models_and_films_that_will_not_do_are_named(captioner, tmp_path, media):
    spec = captioner.spec.replace(input=dataclasses.replace(captioner.spec.input, audio_rate=48_000))
    with pytest.raises(UserError, match="audio_rate=48000 Hz; events of films have sound of 16000 Hz"):
        DenseCaptioner(Listener(spec=spec, model=captioner.model))
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=r"broken\.mp4 cannot be read"):
        list(DenseCaptioner(captioner, options=CUT).caption([tmp_path / "broken.mp4"], workers=1))
    media.write(tmp_path / "long.mp4", media.grey(*range(0, 240, 10)))
    strict = DenseCaptioner(captioner, options=EventOptions(most=1, longest_s=2.0))
    with pytest.raises(UserError, match=r"long\.mp4 lasts 3\.0 s, more than 1 events"):
        list(strict.caption([tmp_path / "long.mp4"], workers=1))
