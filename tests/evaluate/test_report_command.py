"""`twinreel report`: pages made again, models side by side, seeds of one model; figures against loops."""

import csv
import json
import statistics

import numpy as np
import pytest
from fakes import embeddings, frames
from html_page import Page

from twinreel import __main__ as cli
from twinreel.evaluate import results
from twinreel.evaluate.measures.ranks import hits
from twinreel.evaluate.protocols.models import most_different
from twinreel.evaluate.protocols.retrieval import retrieval_ranks
from twinreel.evaluate.reports import gallery
from twinreel.evaluate.runs import find_embeddings, open_runs


def model(seed, *, noise, subset="a" * 64):
    """Embeddings of the same clips and captions, with other errors."""
    made = embeddings(groups=False)
    rng = np.random.default_rng(seed)
    text = made.video[made.video_of_text] + noise * rng.normal(size=made.text.shape)
    made.text = text.astype(np.float32)
    made.protocol |= {"seed": seed, "subset_id": subset, "checkpoint": f"runs/{seed}"}
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Four runs with reports: `base`, and three seeds of another config; the first has thumbnails."""
    root = tmp_path_factory.mktemp("runs")
    for name, seed, noise in (("base", 0, 2.5), ("ours_seed1", 1, 1.4), ("ours_seed2", 2, 1.5), ("ours_seed3", 3, 1.6)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gallery, "clip_frames", frames)
            records = object() if name == "base" else None
            results.write(model(seed, noise=noise), out=root / name / "report", records=records)
        config = {"seed": seed, "model": {"width": 8 if name == "base" else 16}}
        (root / name / "config.json").write_text(json.dumps(config))
    return root


@pytest.fixture(scope="module")
def compared(runs):
    out = runs / "compared"
    assert cli.main(["report", *(str(runs / name) for name in NAMES), "--out", str(out)]) == 0
    return out, json.loads((out / "comparison.json").read_text())


NAMES = ("base", "ours_seed1", "ours_seed2", "ours_seed3")


def test_a_report_is_made_again_in_its_place_with_its_thumbnails(runs, capsys):
    folder = runs / "base" / "report"
    before = {path.name for path in (folder / "media").iterdir()}
    kept = json.loads((folder / "retrieval.json").read_text()) | {"reranked": {}, "measured_elsewhere": {"R@1": 3.0}}
    (folder / "retrieval.json").write_text(json.dumps(kept))
    (folder / "index.html").unlink()
    assert cli.main(["report", str(folder), "--group_by", "width", "--json"]) == 2  # one width: says so
    assert "does not divide the clips" in capsys.readouterr().err
    assert cli.main(["report", str(runs / "base")]) == 0
    assert {path.name for path in (folder / "media").iterdir()} == before and len(before) == 24
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "media/clip-00000.webp" in text
    assert json.loads((folder / "retrieval.json").read_text())["measured_elsewhere"] == {"R@1": 3.0}
    assert f"report: {folder / 'index.html'}" in capsys.readouterr().out


def test_figures_over_seeds_are_mean_and_spread(runs, compared):
    found = compared[1]["models"]
    assert list(found) == ["base", "ours"]
    values = [json.loads((runs / name / "report" / "retrieval.json").read_text()) for name in NAMES[1:]]
    for way in ("text_to_video", "video_to_text"):
        for key in ("R@1", "R@10", "MnR"):
            own = [value[way][key] for value in values]
            one = found["ours"][way][key]
            assert one["mean"] == pytest.approx(statistics.mean(own))
            assert one["std"] == pytest.approx(statistics.stdev(own))
            assert (one["lowest"], one["highest"], one["n"]) == (min(own), max(own), 3)
    assert found["base"]["text_to_video"]["R@1"]["std"] is None
    assert found["base"]["intervals"]["text_to_video"]["R@1"]["low"] > 0 and "intervals" not in found["ours"]


def test_differences_are_those_of_hits_averaged_over_seeds(compared):
    made = [model(seed, noise=noise) for seed, noise in ((0, 2.5), (1, 1.4), (2, 1.5), (3, 1.6))]
    ranks = [
        retrieval_ranks(text=one.text, video=one.video, video_of_text=one.video_of_text)[0] for one in made
    ]  # fmt: skip
    wanted = np.mean([100 * hits(rank, k=1).mean() for rank in ranks[1:]]) - 100 * hits(ranks[0], k=1).mean()
    found = compared[1]["differences"]["ours"]["text_to_video"]["R@1"]
    assert found["difference"] == pytest.approx(wanted)
    assert found["low"] < wanted < found["high"] and found["p"] < 0.05


def test_groups_of_models_are_compared(compared):
    models = compared[1]["groups"]["meta.camera"]["models"]
    for name in ("still", "moving"):
        one, other = (models[model]["text_to_video"][name] for model in ("ours", "base"))
        assert one["difference"]["value"] == pytest.approx(one["R@1"]["value"] - other["R@1"]["value"])
        assert "difference" not in other


def test_the_page_shows_models_queries_and_what_differs(compared):
    out, _ = compared
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    local = [link for link in page.links if not link.startswith("data:")]
    assert {f"{name}/index.html" for name in NAMES} <= set(local) and all((out / link).is_file() for link in local)
    assert [link for link in local if link.startswith("media/")]  # taken over from the first run's report
    for words in ("Differences from base", "ours better than base", "Recall at K", "Groups", "± standard deviation"):
        assert words in page.text
    assert "checkpoint runs/0 runs/1 runs/2 runs/3" in page.text


def test_tables_are_written_beside_the_pages(compared):
    out, found = compared
    for folder in (out, out / "base"):
        assert {"tables.md", "tables.tex", "tables.csv"} <= {path.name for path in folder.iterdir()}
    with (out / "tables.csv").open(newline="", encoding="utf-8") as file:
        rows = {(row["table"], row["row"], row["column"]): row["value"] for row in csv.DictReader(file)}
    one = found["models"]["ours"]["text_to_video"]["R@1"]
    assert rows["models", "Text → video: ours", "R@1, %"] == f"{one['mean']:.2f} ± {one['std']:.2f}"
    assert "24 videos" in rows["models", "note", ""]


def test_queries_that_differ_most_are_found(runs):
    given = open_runs([str(runs / "base"), str(runs / "ours_seed1")])
    assert [run.model for run in given] == ["base", "ours_seed1"]
    first, other = (
        retrieval_ranks(
            text=run.embeddings.text, video=run.embeddings.video, video_of_text=run.embeddings.video_of_text
        )
        for run in given
    )
    from twinreel.evaluate.protocols.models import Measured

    both = [
        Measured(name=run.name, model=run.model, embeddings=run.embeddings, ranks=ranks, results={})
        for run, ranks in zip(given, (first, other), strict=True)
    ]
    better, worse = most_different(both, model="ours_seed1", count=3)
    ratio = first[0].expected / other[0].expected
    assert better[0] == int(np.argmax(ratio)) and len(better) == 3
    assert all(ratio[query] < 1 for query in worse)
    assert len({int(given[0].embeddings.video_of_text[query]) for query in better}) == 3


def test_other_clips_are_refused(tmp_path, capsys):
    for name, subset in (("a", "a" * 64), ("b", "b" * 64)):
        model(0, noise=1.0, subset=subset).save(tmp_path / f"{name}.npz")
    argv = ["report", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    assert cli.main([*argv, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "a and b were measured on different clips (24 of subset id aaaaaaaaaaaaaaaa" in error
    assert not (tmp_path / "out").exists()
    assert cli.main(argv) == 2 and "give --out DIR" in capsys.readouterr().err


def test_runs_are_found_and_named(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "retrieval.json").write_text("{}")
    errors = {
        "nowhere": "does not exist",
        "empty": "no embeddings.npz in it or below; write a report with `twinreel evaluate",
        "figures": "figures without the queries behind them",
    }
    for name, words in errors.items():
        with pytest.raises(ValueError, match=words):
            find_embeddings(tmp_path / name)
    with pytest.raises(ValueError, match="reports below it"):
        find_embeddings(runs)
    with pytest.raises(ValueError, match="given twice"):
        open_runs([str(runs / "base"), str(runs / "base" / "report")])
    named = open_runs([f"x={runs / 'base'}", f"x={runs / 'ours_seed1'}"])
    assert [(run.name, run.model) for run in named] == [("base", "x"), ("ours_seed1", "x")]
