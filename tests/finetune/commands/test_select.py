"""`twinreel select` on clips whose class is their colour."""

import json
import shutil

import numpy as np
import pytest
from files import lines

from twinreel.base.errors import UserError
from twinreel.finetune.commands import select as command
from twinreel.finetune.commands.finetune import main as finetune
from twinreel.finetune.commands.select import main


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("select")


def flags(colours, out, *more, model="pretrained", name="next") -> list[str]:
    return [str(colours / model), "--data", str(colours / "data"), "--out", str(out / f"{name}.jsonl"), *more]


def some_ids(colours, *, split="train", count=6) -> list[str]:
    rows = [row for row in lines(colours / "data" / "clips.jsonl") if row["split"] == split]
    return [row["clip_id"] for row in rows[:count]]


def test_a_probe_of_the_labelled_clips_predicts_the_others(colours, out, capsys):
    known = some_ids(colours)
    (out / "done.txt").write_text("\n".join(known) + "\n\n")
    assert (
        main(flags(colours, out, "--budget", "4", "--by", "both", "--labelled", str(out / "done.txt"), "--json")) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["clips"] == lines(out / "next.jsonl") and found["labelled"] == 6 and found["unlabelled"] == 31
    assert found["predictions"] == "a linear probe of 6 labelled clips" and found["features"] == "embedding"
    assert [one["rank"] for one in found["clips"]] == [1, 2, 3, 4]
    assert not {one["clip_id"] for one in found["clips"]} & set(known)
    assert all(one["entropy"] > 0 and one["distance"] >= 0 and "entropy" in one["reason"] for one in found["clips"])
    page = (out / "next.html").read_text()
    assert page.count("<figure") == 4 and "next_clips/00.webp" in page and (out / "next_clips" / "00.webp").is_file()


def test_a_list_continues_an_earlier_one(colours, out, capsys):
    first, more = ["--budget", "3", "--by", "k_centre"], ["--labelled", str(out / "a.jsonl")]
    (out / "seed.txt").write_text(some_ids(colours, count=1)[0])
    assert main(flags(colours, out, *first, "--labelled", str(out / "seed.txt"), name="a")) == 0
    assert main(flags(colours, out, *first, *more, name="b")) == 0
    a, b = lines(out / "a.jsonl"), lines(out / "b.jsonl")
    assert len(a) == len(b) == 3 and not {one["clip_id"] for one in a} & {one["clip_id"] for one in b}
    assert all("entropy" not in one and one["nearest"] for one in b)
    assert "page:" in capsys.readouterr().out


def test_the_predictions_of_a_fine_tuned_model_are_used(colours, out, capsys):
    short = ["--config.data.batch_size=8", "--config.train.steps=4", "--config.task.heads=2"]
    short += ["--config.train.eval_every=2", "--config.optimizer.warmup_steps=1"]
    given = ["--init", str(colours / "pretrained"), "--data", str(colours / "data"), "--workdir", str(colours / "sel")]
    assert finetune(["--config", "demo_classify:linear", *given, *short]) == 0
    capsys.readouterr()
    more = ["--budget", "5", "--by", "uncertainty", "--labelled", "val", "--json"]
    assert main(flags(colours, out, *more, model="sel", name="own")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predictions"] == "predictions of the model" and found["features"] == "tokens"
    assert found["labelled"] == 12 and found["unlabelled"] == 37
    doubt = [one["entropy"] for one in found["clips"]]
    assert doubt == sorted(doubt, reverse=True) and 0 < max(doubt) <= np.log(3) + 1e-6


def test_a_curve_next_to_random_choice(colours, out, capsys):
    more = ["--budget", "3", "--curve", "--start", "4", "--rounds", "2", "--draws", "2", "--by", "k_centre", "--json"]
    assert main(flags(colours, out, *more, name="curve")) == 0
    found = json.loads(capsys.readouterr().out)["curve"]
    assert found["labelled"] == [4, 7, 10] and set(found["values"]) == {"uncertainty", "k_centre", "both", "random"}
    assert found["pool"] == 37 and found["test_clips"] == 18 and found["draws"] == 2
    assert "<svg" in (out / "curve.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "0"], "--budget must be at least 1"),
        (["--budget", "1", "--batch_size", "0"], "--batch_size must be at least 1"),
        (["--budget", "1", "--split", "trian"], "did you mean 'train'"),
        (["--budget", "1", "--labelled", "nowhere"], "neither a file nor a split"),
        (["--budget", "1", "--labelled", "{out}/empty"], "names no clip"),
        (["--budget", "1", "--labelled", "{out}/strange"], "no clip of split 'train' has an id"),
        (["--budget", "1", "--labelled", "{out}/broken"], r"broken:1 is no JSON object with clip_id"),
        (["--budget", "1"], "have labels, so none is left to choose"),
        (["--budget", "1", "--by", "both", "--labelled", "val"], "there are no predictions"),
        (["--budget", "1", "--curve", "--by", "both"], "there is no list by both"),
        (["--budget", "9", "--curve", "--rounds", "9", "--by", "k_centre"], "the curve wants"),
        (["--budget", "1", "--curve", "--test_split", "tset"], "did you mean 'test'"),
    ],
)
def test_mistakes(more, message, colours, out, monkeypatch):
    for name, text in {"empty": "\n", "strange": "nobody\n", "broken": "{nothing\n"}.items():
        (out / name).write_text(text)
    with pytest.raises(UserError, match=message):
        main(flags(colours, out, *[one.format(out=out) for one in more], name="never"))
    assert not (out / "never.jsonl").exists()


def test_a_list_must_be_json_lines(colours, tmp_path):
    with pytest.raises(UserError, match=r"must be a \.jsonl file"):
        main([str(colours / "pretrained"), "--data", "x", "--budget", "1", "--out", str(tmp_path / "a.csv")])


def test_ids_that_are_nearly_right_are_named(colours, out):
    ids = some_ids(colours, count=2)
    (out / "near").write_text(f"{ids[0]}\n{ids[1]}x\n")
    from twinreel.data.batches.records import Records

    with pytest.raises(UserError, match=f"did you mean '{ids[1]}'"):
        command.labelled_clips(Records(colours / "data"), split="train", named=str(out / "near"))
    shutil.rmtree(out / "features", ignore_errors=True)
