"""Figures of films against the measures on frames made by hand, and what is refused."""

import dataclasses

import numpy as np
import pytest
from evaluate_golden import arrays, figures
from sklearn.metrics import roc_auc_score

from twinreel.base.errors import UserError
from twinreel.encode.predict.steps import FilmScores
from twinreel.finetune.examples.clips import LabelledClips
from twinreel.finetune.figures.anomaly import Film, anomaly_figures, check_kinds, film_of


def film(label, *, scores, spans=(), rate=16.0, seconds=None, changes=None):
    scores = np.array(scores, float)
    found = FilmScores(
        film=0,
        edges=np.arange(len(scores) + 1.0),
        scores=scores,
        changes=np.array(changes if changes is not None else scores, float),
    )
    spans = np.array(spans, float).reshape(-1, 2)
    duration = seconds or float(len(scores))
    return Film(
        clip_id=label, label=label, abnormal=label != "normal", spans=spans, rate=rate, duration_s=duration, found=found
    )


FILMS = [
    film("normal", scores=[0.1, 0.4, 0.2], changes=[3, 3, 3]),
    film("fire", scores=[0.3, 0.9, 0.1], spans=[(1, 2)], changes=[3, 9, 1]),
    film("fight", scores=[0.35, 0.2, 0.1], spans=[(0.5, 1), (2, 3)], changes=[0, 0, 0]),
]


def test_frames_are_those_of_all_films_together():
    got = anomaly_figures(FILMS)
    scores = np.concatenate([np.repeat(one.found.scores, 16) for one in FILMS])
    truth = np.zeros((3, 48), bool)
    truth[1, 16:32] = truth[2, 8:16] = truth[2, 32:] = True
    assert got["frames"]["auc"] == pytest.approx(roc_auc_score(truth.ravel(), scores))
    assert got["frames"]["frames"] == 144 and got["frames"]["abnormal"] == 40
    assert got["video_auc"] == 0.5  # 0.4 of the normal film lies between 0.9 and 0.35
    two = roc_auc_score(truth[:2].ravel(), scores[:96])
    assert got["by_label"]["fire"] == {"auc": pytest.approx(two), "changes": 1.0, "n": 1}
    late = np.zeros((3, 48), bool)  # RTFM takes numbers from 1 for numbers from 0
    late[1, 17:33] = late[2, 9:17] = late[2, 33:] = True
    assert got["rtfm"]["auc"] == pytest.approx(roc_auc_score(late.ravel(), scores))
    assert got["n"] == 3 and got["abnormal"] == 2 and got["unmarked"] == 0


def of_oracle(video, *, scores, frames):
    """A video of the oracle at 16 frames a second, cut to some frames, with steps of equal length."""
    spans = [((first - 1) / 16, last / 16) for first, last in video["events_from_1_inclusive"]]
    made = film("odd" if spans else "normal", scores=scores, spans=spans, seconds=frames / 16)
    return dataclasses.replace(
        made, found=dataclasses.replace(made.found, edges=np.linspace(0, frames / 16, len(scores) + 1))
    )


def test_both_codes_read_the_videos_of_the_oracle():
    """With the scores that they were given, the figures that they printed."""
    given, found = figures("anomaly"), arrays("anomaly")
    videos, wanted = given["videos"], given["rtfm"]
    crops = [found[f"{video['name']}/crop_scores"].mean(axis=0) for video in videos]
    films = [of_oracle(v, scores=one, frames=16 * v["clips"]) for v, one in zip(videos, crops, strict=True)]
    got = anomaly_figures(films)["rtfm"]
    assert got["frames"] == wanted["frames"] and got["auc"] == pytest.approx(wanted["AUC"], abs=1e-4)
    assert got["pr_auc"] == pytest.approx(wanted["PR AUC by auc(recall, precision)"], abs=2e-4)
    cuts = [min(v["frames"], 16 * v["clips"] + 15) for v in videos]  # two of them have fewer clips than there could be
    films = [of_oracle(v, scores=v["scores_of_32_segments"], frames=n) for v, n in zip(videos, cuts, strict=True)]
    ends = np.cumsum([v["frames"] for v in videos])[:-1]
    printed = [np.split(found[f"sultani/frame_{name}"], ends) for name in ("scores", "truth")]
    scores, truth = (
        np.concatenate([own[:n] for own, n in zip(one, cuts, strict=True)]).astype(float) for one in printed
    )
    assert (np.concatenate([one.truth for one in films]) == (truth > 0)).all()
    got = anomaly_figures(films)["sultani"]
    assert got["frames"] == len(truth) and got["auc"] == pytest.approx(roc_auc_score(truth, scores), abs=2e-3)


def test_films_without_spans_and_short_films():
    unmarked = film("fire", scores=[0.8])
    got = anomaly_figures([*FILMS, unmarked])
    assert got["unmarked"] == 1 and got["frames"] == anomaly_figures(FILMS)["frames"]
    got = anomaly_figures([FILMS[0], unmarked])
    assert got["frames"] is got["sultani"] is None and got["video_auc"] == 1.0
    short = film("fire", scores=[0.8, 0.1], spans=[(0, 1)], rate=4.0)
    got = anomaly_figures([short])
    assert got["frames"]["frames"] == 8 and got["rtfm"] is None and got["video_auc"] is None


def test_mistakes_in_the_data_are_named():
    row = {"clip_id": "a", "labels": ["normal"], "duration_s": 2.0, "num_frames": 8, "source": {"fps": 4.0}}
    found = FILMS[0].found
    assert film_of(row | {"spans": []}, found=found, normal=("normal",)).rate == 4.0
    assert film_of(row | {"spans": [], "source": {}}, found=found, normal=("normal",)).rate == 4.0
    with pytest.raises(UserError, match=r"clip 'a' has the label 'normal'.*and spans"):
        film_of(row | {"spans": [{"start_s": 0, "end_s": 1}]}, found=found, normal=("normal",))
    clips = LabelledClips(split="train", labels=("fight", "fire"), label=np.array([0, 1, -1], np.int32))
    with pytest.raises(UserError, match=r"all 2 clips of split 'train'.*are abnormal.*labels: fight, fire"):
        check_kinds(clips, normal=("normal",), field="x")
    assert check_kinds(clips, normal=("fire",), field="x").tolist() == [True, False]
