"""Films read chunk by chunk by a model of two lines of NumPy; what is chosen of them, against all choices."""

import itertools

import numpy as np
import pytest
from small_encoder import drawn_encoder

from twinreel.base.errors import UserError
from twinreel.data.options import InputSpec
from twinreel.encode.embed.film import Film, read_film
from twinreel.encode.films.summary import SummaryOptions, choose, summarise_file, summary_of
from twinreel.encode.media import windows
from twinreel.zoo.spec import ModelSpec


class Grey:
    """Vectors are a one at the place of the grey level; the score is the level."""

    piece_seconds = 2.0
    spec = ModelSpec(
        towers={"video": {"family": "frames"}},
        input=InputSpec(num_frames=8, eval_video="resize_short(16)|center_crop(16)", decode={"fps": 4.0}),
    )

    def steps(self, video):
        level = video.mean(axis=(2, 3, 4))
        return np.eye(16)[(level // 16).astype(int)], level / 255


LEVELS = [24, 200, 88, 152, 40]
SECONDS = [3, 2, 4, 2.5, 2]


@pytest.fixture(scope="module")
def film(media_files_folder):
    return media_files_folder / "film.mkv"


@pytest.fixture(scope="module")
def media_files_folder(tmp_path_factory):
    from media_files import grey, write_media

    folder = tmp_path_factory.mktemp("films")
    levels = [level for level, seconds in zip(LEVELS, SECONDS, strict=True) for _ in range(round(8 * seconds))]
    write_media(folder / "film.mkv", grey(*levels))
    write_media(folder / "one.mp4", grey(100))
    return folder


def test_pieces_are_read_in_chunks_and_joined(film, monkeypatch):
    """Eight pieces of 1.7 s, three of them decoded at a time; vectors and times are those of the film."""
    monkeypatch.setattr(windows, "_CHUNK_S", 6.0)
    Grey.piece_seconds, ticks = 1.7, []
    found = read_film(Grey(), film, seconds=9.0, batch_size=2, workers=1, tick=lambda *now: ticks.append(now))
    Grey.piece_seconds = 2.0
    assert len(found.vectors) == 64 and found.edges_s[0] == 0 and found.duration_s == pytest.approx(13.5, abs=0.01)
    middle = (found.edges_s[1:] + found.edges_s[:-1]) / 2
    place = np.searchsorted(np.cumsum(SECONDS), middle)
    far = np.abs(middle[:, None] - np.cumsum(SECONDS)).min(axis=1) > 0.25
    assert (found.vectors.argmax(axis=1) == np.array(LEVELS)[place] // 16)[far].all()
    np.testing.assert_allclose(found.scores[far], np.array(LEVELS)[place][far] / 255, atol=0.01)
    assert ticks[-1][0] == pytest.approx(13.5, abs=0.01) and len(ticks) == 3
    assert (np.diff(found.stamps_s) > 0).all() and found.stamps_s[-1] == pytest.approx(13.375, abs=0.01)
    assert found.contrast.max() < 2  # plain frames


@pytest.fixture(scope="module")
def encoder():
    return drawn_encoder()


def test_an_encoder_embeds_each_moment_by_itself(film, encoder):
    found = read_film(encoder, film, seconds=3.0, batch_size=2, workers=1)
    assert found.edges_s.tolist() == pytest.approx([0, 3, 6, 9, 12, 13.5], abs=0.01) and found.scores is None
    level = np.full((1, 4, 16, 16, 3), 24, np.uint8)  # the first three seconds are one picture
    np.testing.assert_allclose(found.vectors[0], encoder.encode_video_arrays(level)[0], atol=0.02)
    assert found.vectors.shape == (5, 6)


def test_shots_end_at_frames_and_the_best_fit_into_the_share(film):
    found = summarise_file(Grey(), film, options=SummaryOptions(share=0.35, shortest_s=1.0), workers=1)
    ends = np.cumsum(SECONDS)
    np.testing.assert_allclose(found.shots[:, 1], ends, atol=0.26)
    assert all(np.abs(found.film.stamps_s - edge).min() < 1e-9 for edge in found.shots[1:, 0])
    assert found.chosen == (1, 3) and found.seconds <= 0.35 * 13.5 + 1e-9  # the two brightest
    values = [found.scores[a:b].mean() for a, b in itertools.pairwise([*found.starts, len(found.scores)])]
    np.testing.assert_allclose(found.values, values)
    said = found.to_dict()
    assert [shot["chosen"] for shot in said["shots"]] == [False, True, False, True, False]
    assert said["duration_s"] == 13.5 and said["summary_s"] == pytest.approx(found.seconds, abs=1e-3)
    assert all(
        start <= found.film.edges_s[best] < end for best, (start, end) in zip(found.best, found.shots, strict=True)
    )


def test_a_film_of_one_frame_is_its_own_summary(media_files_folder):
    found = summarise_file(Grey(), media_files_folder / "one.mp4", options=SummaryOptions(), workers=1)
    assert found.chosen == (0,) and len(found.shots) == 1 and found.seconds == pytest.approx(0.125, abs=0.01)


def test_choices_are_the_best_of_all():
    rng = np.random.default_rng(0)
    for share in (0.15, 0.5, 1.0):
        values, seconds = rng.uniform(0, 1, 7), rng.integers(100, 400, 7) / 100
        fitting = [
            c
            for n in range(8)
            for c in itertools.combinations(range(7), n)
            if sum(seconds[i] for i in c) <= share * sum(seconds)
        ]
        assert choose(values, seconds=seconds, share=share) == list(
            max(fitting, key=lambda c: sum(values[i] for i in c))
        )
    assert choose(np.array([0.9, 0.2, 0.3]), seconds=np.array([5.0, 1.0, 1.0]), share=0.01) == [2]  # none fits


def test_a_film_without_scores_is_scored_by_what_shots_add():
    rows = np.repeat(np.eye(3)[[0, 1, 0, 2]], [6, 4, 6, 1], axis=0)
    edges = np.arange(18.0)
    film = Film(path=None, edges_s=edges, vectors=rows, scores=None, contrast=np.full(17, 50.0), stamps_s=edges)
    found = summary_of(film, options=SummaryOptions(share=0.6, shortest_s=1.0))
    assert found.starts.tolist() == [0, 6, 10, 16] and found.chosen == (0, 1)


def test_no_shot_is_empty_where_frames_are_far_apart():
    rows, edges = np.repeat(np.eye(6), 4, axis=0), np.arange(25.0)
    given = {"edges_s": edges, "vectors": rows, "scores": np.ones(24), "contrast": np.full(24, 50.0)}
    film = Film(path=None, stamps_s=np.array([0.0, 9.5, 20.0]), **given)  # a slide show
    found = summary_of(film, options=SummaryOptions(shortest_s=1.0))
    assert found.shots[:, 0].tolist() == [0, 4, 9.5, 12, 16, 20]
    assert found.shots[:, 1].tolist() == [4, 9.5, 12, 16, 20, 24]


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        *(("share", value, "wanted above 0 and at most 1") for value in (0.0, -0.1, 1.01, float("nan"))),
        ("seconds", 0.0, "seconds=0; wanted seconds, above 0"),
        ("shortest_s", float("inf"), "shortest_s=inf"),
        ("penalty", -1.0, "penalty=-1; wanted at least 0"),
    ],
)
def test_options_out_of_range_are_refused(field, value, wanted):
    with pytest.raises(UserError, match=wanted):
        SummaryOptions(**{field: value})


def test_files_that_are_no_films_are_named(encoder, tmp_path):
    (tmp_path / "a.mp4").write_text("no film")
    with pytest.raises(UserError, match=r"a\.mp4 cannot be read: cannot be opened"):
        read_film(Grey(), tmp_path / "a.mp4", seconds=1.0)
    with pytest.raises(UserError, match=r"a\.mp4 cannot be read"):
        read_film(encoder, tmp_path / "a.mp4", seconds=1.0, workers=1)
