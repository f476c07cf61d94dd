"""What annotators say, from lines of clips.jsonl; figures of summaries against the measures called one by one."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.summaries import correlations, summarise, summary_f
from twinreel.finetune.examples.annotators import annotations_of, step_targets
from twinreel.finetune.examples.queries import queries_of
from twinreel.finetune.figures.summaries import change_figures, matched, summary_figures


def row(seconds=4.0, **meta):
    return {"clip_id": "a", "duration_s": seconds, "meta": meta}


SCORED = row(importance=[[1, 1, 3, 5, 5, 1, 1, 1], [2, 1, 1, 4, 5, 2, 1, 1]])
CHOSEN = row(summaries=[[[1.0, 2.5]], [[0.0, 0.5], [2.0, 3.0]]])


def test_scores_are_scaled_within_the_film():
    said = annotations_of(SCORED)
    assert said.mean.tolist() == [0.125, 0, 0.25, 0.875, 1, 0.125, 0, 0] and said.kept(np.zeros(1)) is None
    np.testing.assert_allclose(step_targets([said], steps=4), [[0, 0.875, 0.125, 0]])
    np.testing.assert_allclose(step_targets([said], steps=16)[0], np.repeat(said.mean, 2))
    assert annotations_of(row(importance=[[3, 3]])).mean.tolist() == [0.5, 0.5]


def test_choices_are_scores_of_half_seconds():
    said = annotations_of(CHOSEN)
    assert said.scores.tolist() == [[0, 0, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 1, 1, 0, 0]]
    assert said.kept(np.array([0.25, 1.0, 2.49, 2.5, 3.0])).tolist() == [
        [False, True, True, False, False],
        [1, 0, 1, 1, 0],
    ]
    both = annotations_of(row(importance=[[1, 2]], summaries=[[[0, 1]]]))
    assert both.scores.tolist() == [[1, 2]] and both.summaries[0].tolist() == [[0, 1]]


def test_films_that_annotators_know_take_part():
    rows = [
        {**SCORED, "spans": []},
        {**row(), "spans": []},
        {**CHOSEN, "spans": []},
        {"clip_id": "b", "duration_s": 1.0},
    ]
    got = queries_of(rows, split="train", query="annotated")
    assert got.record.tolist() == [0, 2] and got.texts == ("", "") and got.duration.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("meta", "wanted"),
    [
        ({"importance": [[1, 2, 3], [1, 2]]}, "all of one length; got 2 and 3 numbers"),
        ({"importance": [1, 2, 3]}, "for each annotator a list of numbers"),
        ({"importance": [[1, "x"]]}, r"clip 'a': meta\.importance"),
        ({"importance": [[1, float("nan")]]}, r"meta\.importance"),
        ({"importance": []}, "got no numbers"),
        ({"importance": 3}, r"meta\.importance"),
        ({"summaries": [[[1.0, 5.0]]]}, "of 4 s: meta.summaries has a stretch that is none of it"),
        ({"summaries": [[[2.0, 1.0]]]}, "stretch that is none of it"),
        ({"summaries": [[1.0, 2.0, 3.0]]}, "must be a list for each annotator"),
        ({"summaries": []}, "must be a list for each annotator"),
    ],
)
def test_annotations_of_other_forms_are_refused(meta, wanted):
    with pytest.raises(UserError, match=wanted):
        annotations_of(row(**meta))


def test_figures_are_those_of_the_measures():
    """On 40 frames of a tenth of a second and eight steps: shots of 1, 1.5 and 1.5 s, and a limit of 2 s."""
    begins = [1, 0, 1, 0, 0, 1, 0, 0]
    scores = np.array([0.2, 0.1, 0.3, 0.9, 0.8, 0.4, 0.1, 0.2])
    output = np.column_stack([scores, begins, 1 - scores])
    got = summary_figures([output], annotations=[annotations_of(SCORED)], duration=np.array([4.0]), share=0.5)
    users = np.array(SCORED["meta"]["importance"], float)
    picks, points = np.arange(8) * 5, np.array([[0, 9], [10, 24], [25, 39]])
    about = {"picks": picks, "change_points": points, "n_frames": 40, "share": 0.5}
    kept = np.stack([summarise(one, **about)[0] for one in users])
    for name, own in (("model", scores), ("untrained", 1 - scores)):
        wanted = summary_f(summarise(own, **about)[0], users=kept)
        ranks = correlations(own, users=users)
        assert got[name]["F_mean"] == pytest.approx(wanted["mean"]["F"])
        assert got[name]["F_max"] == pytest.approx(wanted["best"]["F"])
        assert {key: got[name][key] for key in ("kendall", "spearman")} == pytest.approx(
            {key: ranks[key] for key in ("kendall", "spearman")}
        )
    people = [correlations(users[i], users=users[[1 - i]])["kendall"] for i in (0, 1)]
    assert got["annotators"]["kendall"] == pytest.approx(np.mean(people))
    middle = summary_f(np.repeat([False, True, False], [10, 15, 15]), users=kept)  # one shot of three fits
    assert got["uniform"] == pytest.approx({"F_mean": middle["mean"]["F"], "F_max": middle["best"]["F"]})
    assert abs(got["random"]["kendall"]) < 0.5 and got["n"] == 1


def test_figures_of_chosen_stretches_and_of_constant_scores():
    output = np.column_stack([np.ones(8), [1, 0, 1, 0, 0, 1, 0, 0], np.ones(8)])
    got = summary_figures([output], annotations=[annotations_of(CHOSEN)], duration=np.array([4.0]), share=0.05)
    first = np.repeat([True, False], [10, 30])  # no shot fits; the shortest one is shown
    users = np.stack([np.repeat([0, 1, 0], [10, 15, 15]), np.repeat([1, 0, 1, 0], [5, 15, 10, 10])])
    assert got["model"]["F_mean"] == pytest.approx(summary_f(first, users=users)["mean"]["F"])
    assert got["model"]["kendall"] is None and got["annotators"]["kendall"] is not None
    alone = summary_figures(
        [output], annotations=[annotations_of(row(importance=[[1, 2]]))], duration=np.ones(1), share=1
    )
    assert alone["annotators"]["F_mean"] is None and alone["model"]["F_mean"] == 100


def test_changes_are_matched_once():
    assert matched(np.array([1.0, 1.2]), found=np.array([1.1]), near_s=0.5) == 1
    assert matched(np.array([1.0, 2.0]), found=np.array([]), near_s=0.5) == 0
    begins = np.zeros((2, 20))
    begins[:, [0, 5, 11]] = 1
    found = [np.column_stack([np.ones(20), one, np.ones(20)]) for one in begins]
    got = change_figures(found, changes=[[2.5, 5.0, 9.0], None], duration=np.array([10.0, 10.0]))
    assert (got["n"], got["changes"], got["found"]) == (1, 3, 2)
    assert got["within 0.5 s"] == pytest.approx({"recall": 200 / 3, "precision": 100.0, "even": 0.0})
    assert got["within 0.25 s"] == pytest.approx({"recall": 100 / 3, "precision": 50.0, "even": 0.0})
    assert change_figures(found, changes=[None, None], duration=np.ones(2)) == {}
