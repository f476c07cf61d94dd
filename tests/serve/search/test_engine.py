"""The search against a loop in float64 over all moments: one term, several, other sides, filters, merged stretches."""

import doctest
import os

import numpy as np
import pytest
from brightness_model import brightness_model
from index_state import state
from media_files import tone, write_media
from serve_films import LEVELS, SETTINGS

from twinreel.base.errors import UserError
from twinreel.serve.search import engine
from twinreel.serve.search.collection import Collection
from twinreel.serve.search.engine import SearchOptions, search
from twinreel.serve.search.filters import Filters
from twinreel.serve.search.query import Term, embed_terms


@pytest.fixture
def ask(library):
    """Searches the index; returns the results."""
    with Collection(library) as collection:

        def run(*terms, filters=None, **options):
            wanted = embed_terms(terms, opened=brightness_model(), settings=SETTINGS)
            given = SearchOptions(**{"limit": 99, **options})
            return search(collection, wanted, filters=filters or Filters(), options=given)

        yield run


def text(value, weight=1.0, side="video"):
    return Term(kind="text", value=value, weight=weight, side=side)


def best_moments(library, score):
    """{path: (best score, start)} by a loop over all moments; `score` of {side: vector}, None = does not count."""
    found = {}
    for (path, start, _), vectors in sorted(state(library).items()):
        value = score({side: vector.astype(np.float64) for side, vector in vectors.items()})
        if value is not None and (path not in found or value > found[path][0] + 1e-9):
            found[path] = (value, start)
    return found


def check(results, want):
    for hit in results.hits:
        assert hit.score == pytest.approx(want[hit.file.path][0], abs=1e-5)
    assert {hit.file.path for hit in results.hits} == set(want)
    scores = [hit.score for hit in results.hits]
    assert scores == sorted(scores, reverse=True)


def test_examples():
    assert doctest.testmod(engine).failed == 0


def test_a_text_finds_its_film_first(ask, library, films):
    for level in LEVELS:
        results = ask(text(f"grey {level}"))
        vector = brightness_model().encoder.encode_text([f"grey {level}"])[0].astype(np.float64)
        check(results, best_moments(library, lambda sides, v=vector: float(sides["video"] @ v)))
        near = [hit.file.path for hit in results.hits if hit.score > results.hits[0].score - 1e-4]
        assert str(films / "short" / f"grey{level}.mp4") in near
        assert (results.unit, results.moments) == ("cosine", 30)


def test_a_film_finds_itself_first(ask, films):
    for path in (films / "short" / "grey30.mp4", films / "short" / "grey190.mp4", films / "long" / "ramp.mp4"):
        results = ask(Term(kind="like", value=str(path)))
        assert results.hits[0].file.path == str(path) and results.hits[0].score == pytest.approx(1, abs=1e-5)
    assert ask(Term(kind="like", value=str(films / "picture.png"))).hits[0].file.path == str(films / "picture.png")


def test_a_moment_of_a_long_film(ask):
    """Level 160 is on display from 32 s to 34 s."""
    ramp = next(hit for hit in ask(text("grey 160")).hits if hit.file.path.endswith("ramp.mp4"))
    assert any(span.start_s <= 32.0 and span.end_s >= 34.0 for span in ramp.spans[:1])
    assert [(span.start_s, span.end_s) for span in ramp.strip] == [(2.0 * i, 2.0 * i + 4) for i in range(23)]
    assert max(ramp.strip, key=lambda span: span.score).score == ramp.score


def test_a_sound_finds_its_film(ask, films, tmp_path):
    for number in (1, 4):
        path = write_media(tmp_path / f"{number}.mp4", None, sound=tone(2, hertz=300 + 200 * number))
        results = ask(Term(kind="sound", value=str(path), side="audio"))
        assert results.hits[0].file.path == str(films / "short" / f"grey{LEVELS[number]}.mp4")
        assert len(results.hits) == len(LEVELS)  # files without sound are none


def test_what_is_said(ask):
    results = ask(text("grey 200", side="transcript"))
    (hit,) = results.hits
    assert hit.score == pytest.approx(1, abs=1e-5) and (hit.spans[0].start_s, hit.spans[0].end_s) == (38.0, 46.0)
    assert results.moments == 5


def test_several_terms_against_a_loop(ask, library, films, tmp_path):
    sound = write_media(tmp_path / "s.mp4", None, sound=tone(2, hertz=700))
    terms = [
        text("grey 110", 2.0),
        Term(kind="like", value=str(films / "short" / "grey150.mp4"), weight=1.0),
        text("grey 30", -0.5),
        text("grey 200", -0.25, side="transcript"),
        Term(kind="sound", value=str(sound), weight=1.0, side="audio"),
    ]
    wanted = embed_terms(terms, opened=brightness_model(), settings=SETTINGS)
    moments = list(state(library).values())
    spread = []
    for one in wanted:
        rows = np.stack([vectors[one.term.side] for vectors in moments if one.term.side in vectors])
        cosines = (rows.astype(np.float64) @ one.vectors.astype(np.float64).T).max(axis=1)
        spread.append((cosines.mean(), cosines.std()))

    def score(sides):
        total = 0.0
        for one, (mean, deviation) in zip(wanted, spread, strict=True):
            if one.term.side in sides:
                cosine = max(float(sides[one.term.side] @ row) for row in one.vectors.astype(np.float64))
                total += one.term.weight * (cosine - mean) / deviation
            elif one.term.weight > 0:
                return None
        return total / 4.75

    want = best_moments(library, score)
    results = ask(*terms)
    assert results.unit == "z" and len(results.hits) == len(want) == len(LEVELS)
    for hit in results.hits:
        assert hit.score == pytest.approx(want[hit.file.path][0], abs=1e-4)
    assert len(results.hits[0].terms) == 5 and results.hits[0].terms[3] is None
    assert [hit.score for hit in results.hits] == sorted((hit.score for hit in results.hits), reverse=True)


def test_what_is_to_be_avoided_sinks(ask):
    plain = [hit.file.path for hit in ask(text("grey 120")).hits]
    minus = [hit.file.path for hit in ask(text("grey 120"), text("grey 30", -1.0)).hits]
    dark = next(path for path in plain if path.endswith("grey70.mp4"))
    light = next(path for path in plain if path.endswith("grey190.mp4"))
    assert minus.index(light) < minus.index(dark)
    with pytest.raises(UserError, match="names only what to avoid"):
        ask(text("grey 30", -1.0))


def test_limits(ask):
    everything = ask(text("grey 90")).hits
    few = ask(text("grey 90"), limit=3, per_file=1)
    assert [hit.file.path for hit in few.hits] == [hit.file.path for hit in everything[:3]]
    assert all(len(hit.spans) == 1 for hit in few.hits)
    with pytest.raises(UserError, match="--limit is 0"):
        ask(text("grey 90"), limit=0)


def test_more_moments_are_looked_at_until_there_are_files_enough(ask, monkeypatch):
    """The first moments are all of one film."""
    monkeypatch.setattr(engine, "_FIRST", 2)
    assert len(ask(text("grey 5"), limit=5).hits) == 5


def test_filters(ask, films):
    everything = ask(text("grey 90")).hits
    for filters, kept in (
        (Filters(folder=str(films / "short")), lambda hit: "/short/" in hit.file.path),
        (Filters(folder=str(films / "shor")), None),
        (Filters(min_duration=3.0), lambda hit: hit.file.path.endswith("ramp.mp4")),
        (Filters(max_duration=1.0), lambda hit: hit.file.path.endswith("png")),
        (Filters(after="2000-01-01"), lambda hit: True),
        (Filters(before="2000-01-01"), None),
    ):
        if kept is None:
            with pytest.raises(UserError, match="no file of the index meets all of"):
                ask(text("grey 90"), filters=filters)
        else:
            found = ask(text("grey 90"), filters=filters).hits
            assert [hit.file.path for hit in found] == [hit.file.path for hit in everything if kept(hit)]
    with pytest.raises(UserError, match="is no date; write YYYY-MM-DD"):
        ask(text("grey 90"), filters=Filters(after="May"))
    with pytest.raises(UserError, match="unknown label 'dog'"):
        ask(text("grey 90"), filters=Filters(labels=("dog",)))


def test_dates_and_labels(copied, update, tmp_path):
    from twinreel.data.manifest import Clip, write_manifest

    paths = [copied / "short" / f"grey{level}.mp4" for level in LEVELS[:3]]
    for path, year in zip(paths, (2001, 2011, 2021), strict=True):
        os.utime(path, (1, (year - 1970) * 365.25 * 86_400 + 86_400 * 40))
    labels = (("a", "b"), ("b",), ())
    clips = [
        Clip(clip_id=str(i), path=str(path), labels=own)
        for i, (path, own) in enumerate(zip(paths, labels, strict=True))
    ]
    write_manifest(tmp_path / "clips.jsonl", clips=clips)
    update(tmp_path / "clips.jsonl")
    with Collection(tmp_path / "index") as collection:

        def kept(**filters):
            found = Filters(**filters).files(collection.connection)
            return sorted(paths.index(type(paths[0])(file.path)) for file in collection.files(found.tolist()).values())

        assert kept(after="2005-01-01") == [1, 2] and kept(after="2005-01-01", before="2015-01-01") == [1]
        assert kept(labels=("b",)) == [0, 1] and kept(labels=("a", "b"), before="2005-01-01") == [0]
        with pytest.raises(UserError, match="known: a, b"):
            kept(labels=("c",))


def test_dual_softmax_over_a_bank(ask, library):
    bank = brightness_model().encoder.encode_text([f"grey {level}" for level in (40, 90, 250)])
    query = brightness_model().encoder.encode_text(["grey 100"])[0]
    rows = np.stack([query, *bank]).astype(np.float64)

    def score(sides):
        cosines = rows @ sides["video"]
        weights = np.exp(20 * cosines)
        return float(cosines[0] * weights[0] / weights.sum())

    results = ask(text("grey 100"), bank=bank, scale=20.0)
    want = best_moments(library, score)
    assert results.unit == "dual softmax" and len(results.hits) == 8
    for hit in results.hits:
        assert hit.score == pytest.approx(want[hit.file.path][0], abs=1e-5)
    with pytest.raises(UserError, match="--rerank works for queries of one term"):
        ask(text("grey 100"), text("grey 30", -1.0), bank=bank)


def test_files_that_look_the_same_are_one_hit(ask):
    plain = ask(text("grey 100")).hits
    folded = ask(text("grey 100"), fold=0.99).hits
    assert len(folded) < len(plain)
    assert sorted(h.file.path for hit in folded for h in (hit, *hit.alike)) == sorted(h.file.path for h in plain)
    assert len(ask(text("grey 100"), fold=0.99, limit=2).hits) == 2
