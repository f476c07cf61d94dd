"""Several labels, levels and numbers: what is read, what is measured, and runs from bundle to predictions."""

import json
import shutil

import numpy as np
import pytest
from small_encoder import small_encoder

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.evaluate.measures.sentiment import intensity
from twinreel.finetune.commands import predict
from twinreel.finetune.commands.finetune import finetune
from twinreel.finetune.figures.grades import level_figures, multilabel_figures, number_figures

SHORT = [
    *("data.batch_size=8", "data.num_frames=4", "task.head=linear", "train.steps=4", "train.log_every=1"),
    *("train.eval_every=2", "train.checkpoint_every=2", "optimizer.warmup_steps=1"),
]


def test_figures_of_several_labels_are_scikit_learn_s():
    from sklearn.metrics import average_precision_score, f1_score

    rng = np.random.default_rng(0)
    scores, targets = rng.random((40, 5)), rng.integers(0, 2, (40, 5))
    targets[:, 4] = 0
    got = multilabel_figures(scores, targets=targets, names=list("abcde"))
    own = [average_precision_score(targets[:, k], scores[:, k]) for k in range(4)]
    assert got["mAP"] == pytest.approx(100 * np.mean(own)) and got["per_class"]["e"] == {"ap": None, "n": 0}
    assert got["mAP_absent_as_zero"] == pytest.approx(100 * np.sum(own) / 5)
    assert got["baseline"]["mAP"] == pytest.approx(100 * targets[:, :4].mean())
    assert got["F1"]["micro"] == pytest.approx(100 * f1_score(targets, scores >= 0.5, average="micro"))


def test_figures_of_numbers_and_levels():
    rng = np.random.default_rng(1)
    truth = rng.uniform(-3, 3, 30).round(1)
    predicted = truth + rng.normal(0, 0.5, 30)
    got = number_figures(predicted, truth=truth, usual=0.5, scale="mosi")
    assert got["corr"] == pytest.approx(np.corrcoef(predicted, truth)[0, 1])
    assert got["sentiment"] == pytest.approx(intensity(predicted, truth=truth))
    assert got["baseline"]["mae"] == pytest.approx(np.abs(truth - 0.5).mean())
    assert number_figures(np.ones(3), truth=np.arange(3.0), usual=0, scale="")["corr"] is None
    from sklearn.metrics import cohen_kappa_score

    level, guess = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    found = level_figures(np.eye(4)[guess], level=level)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(level, guess, weights="quadratic"))
    assert found["level_error"] == pytest.approx(np.abs(level - guess).mean())


@pytest.fixture(scope="module")
def start(tiny_data, tmp_path_factory):
    """A function (workdir, overrides) -> report, on clips with a number `meta.length` and a level `meta.size`."""
    root = tmp_path_factory.mktemp("grades")
    small_encoder().save(root / "towers")
    shutil.copytree(tiny_data, root / "data")
    rows = [json.loads(line) for line in (root / "data" / "clips.jsonl").read_text().splitlines()]
    for row in rows:
        row["meta"]["length"] = row["duration_s"]
        row["meta"]["size"] = ("few", "some", "many")[row["index"] % 3]
    (root / "data" / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def start(workdir, *overrides):
        config = load_config("demo_attributes", overrides=[f"data.dir={root / 'data'}", *SHORT, *overrides])
        return finetune(config, init=root / "towers", workdir=root / workdir)

    start.root = root
    return start


def test_several_labels_mixed_and_weighed(start, tiny_data, capsys):
    report = start("multi", "task.class_weights=balanced", "task.mixup=0.4", "task.cutmix=1.0", "task.min_count=1")
    rows = Records(tiny_data).rows("test")
    whole = json.loads((start.root / "multi" / "report" / "classification.json").read_text())
    assert [clip["truth"] for clip in whole["clips"]] == [", ".join(row["meta"]["attributes"]) for row in rows]
    assert report["per_class"]["falls"]["n"] == sum("falls" in row["meta"]["attributes"] for row in rows)
    file = str(tiny_data.parent / "videos" / rows[0]["file"])
    capsys.readouterr()
    assert predict.main([str(start.root / "multi"), file, "--json", "--top_k", "0"]) == 0
    [one] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert set(one["probabilities"]) == set(report["per_class"])
    assert one["labels"] == [name for name, p in one["probabilities"].items() if p >= 0.5]


def test_a_number(start, tiny_data, capsys):
    """It is standardised for training and comes back in its own unit."""
    report = start("number", "task.kind=regression", "task.target=meta.length", "task.labels=()")
    assert 0 <= report["mae"] < 0.5 and report["baseline"]["mae"] < 0.5  # clips last 2.4 to 3 s
    file = str(tiny_data.parent / "videos" / Records(tiny_data).rows("test")[0]["file"])
    [one] = twinreel.load(start.root / "number").predict([file])
    assert 2 < one["value"] < 3.5
    assert predict.main([str(start.root / "number"), file]) == 0 and f"{one['value']:.4g}" in capsys.readouterr().out


def test_levels(start):
    report = start("levels", "task.kind=ordinal", "task.target=meta.size", "task.labels=('few','some','many')")
    assert list(report["per_class"]) == ["few", "some", "many"] and 0 <= report["level_error"] <= 2
    predictor = twinreel.load(start.root / "levels")
    found = predictor.predict_arrays(np.zeros((2, 4, 16, 16, 3), np.uint8))
    assert found.shape == (2, 3) and (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("task.kind=mutli", r"config\.task\.kind: 'mutli'.*did you mean 'multi'"),
        ("task.target=atributes", r"wanted 'labels', or 'meta\.NAME'"),
        ("task.target=meta.none", r"no clip of the train split has config\.task\.target='meta\.none'"),
        ("task.labels=('reed',)", "did you mean 'red'"),
        ("task.kind=regression", "wants numbers"),
        ("task.kind=ordinal", "needs the levels in their order"),
        ("task.kind=single", "set target='labels'"),
        ("task.mixup=-0.1", "mixup must be at least 0"),
        ("task.view_average=mean", "config.task.view_average"),
    ],
)
def test_mistakes_are_named_before_the_workdir_is_taken(start, override, wanted):
    with pytest.raises(UserError, match=wanted):
        start("refused", override)
    assert not (start.root / "refused").exists()
