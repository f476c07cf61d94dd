"""The model card: recipe, protocol, numbers, and nothing of the machine that wrote it."""

import functools
import json
import os

import numpy as np
import pytest
import yaml
from exported_models import trained_clip
from huggingface_hub import ModelCard
from public_models import source

from twinreel.base.errors import UserError
from twinreel.evaluate.protocols.marks import marked
from twinreel.evaluate.protocols.retrieval import retrieval_report
from twinreel.evaluate.results import to_json
from twinreel.zoo.export import public
from twinreel.zoo.export.card import find_results
from twinreel.zoo.export.export import ExportOptions, export
from twinreel.zoo.load import Located, locate


@pytest.fixture
def parameters_only(monkeypatch):
    monkeypatch.setattr(public, "largest_difference", lambda first, second: [])


def report(path, *, step, missing=0):
    """What `twinreel evaluate` writes."""
    rng = np.random.default_rng(0)
    text, video = rng.normal(size=(2, 12, 4))
    protocol = {"dataset": "tiny", "split": "test", "frames": 2, "checkpoint": "/home/me/run", "step": step}
    made = retrieval_report(text=text, video=video, video_of_text=np.arange(12), protocol=protocol)
    made["coverage"] = {"expected": 12 + missing, "found": 12, "missing": missing, "fraction": 12 / (12 + missing)}
    made = marked(made)
    path.parent.mkdir(exist_ok=True)
    path.write_text(to_json(made))
    return made


def test_numbers_come_with_their_protocol(tmp_path, parameters_only):
    bundle = trained_clip(tmp_path / "bundle", origin={"made_by": "convert", "source": "hf:lab/clip", "licence": "MIT"})
    found = report(tmp_path / "report" / "retrieval.json", step=None)
    options = ExportOptions(format="hf", results=str(tmp_path / "report"))
    export(bundle, out=tmp_path / "out", options=options)
    card = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "mit" and header["pipeline_tag"] == "feature-extraction"
    assert "video-text-retrieval" in header["tags"]
    assert f"| text to video | R@1 | {found['text_to_video']['R@1']:.4g} |" in card
    assert "dataset: tiny" in card and "score:" in card and "checkpoint: run" in card and "/home/me" not in card
    assert "public source: hf:lab/clip" in card and "licence of the weights: MIT" in card
    read = {(one.task_type, one.metric_type): one for one in ModelCard(card).data.eval_results}
    assert len(read) == 8
    assert read["video-to-text-retrieval", "recall_at_5"].metric_value == round(found["video_to_text"]["R@5"], 4)
    one = read["text-to-video-retrieval", "median_rank"]
    assert (one.dataset_name, one.dataset_split, one.metric_name) == ("tiny", "test", "MdR")
    assert one.dataset_args["frames"] == 2 and one.dataset_args["videos"] == 12
    assert "mean (0.4, 0.5, 0.6)" in card and "at most 12 tokens" in card


def test_numbers_without_some_clips_are_marked(tmp_path, parameters_only):
    bundle = trained_clip(tmp_path / "bundle")
    found = report(tmp_path / "report" / "retrieval.json", step=None, missing=3)
    export(bundle, out=tmp_path / "out", options=ExportOptions(format="hf", results=str(tmp_path / "report")))
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| text to video | R@1 | {found['text_to_video']['R@1']:.4g}* |" in card
    assert "model-index" not in card, "a leaderboard shows no mark"
    assert "* measured on 12 of 15 clips" in card and "| marked |" not in card


def test_numbers_of_another_model_are_refused(tmp_path, parameters_only):
    bundle = trained_clip(tmp_path / "bundle")
    report(tmp_path / "other.json", step=7)
    for content, message in [
        ((tmp_path / "other.json").read_text(), "is of step 7, the model of step None"),
        ("[]", "has no protocol"),
        ("{", "cannot be read"),
    ]:
        (tmp_path / "results.json").write_text(content)
        options = ExportOptions(format="hf", results=str(tmp_path / "results.json"))
        with pytest.raises(UserError, match=message):
            export(bundle, out=tmp_path / "out", options=options)


@pytest.mark.parametrize(("where", "same"), [("checkpoints/7", True), ("", True), ("../other", False)])
def test_numbers_of_another_run_at_the_same_step_are_refused(where, same, tmp_path):
    spec = locate(trained_clip(tmp_path / "bundle")).spec
    located = Located(spec=spec, path=tmp_path / "run" / "checkpoints" / "7", meta={"step": 7})
    found = report(tmp_path / "found.json", step=7)
    found["protocol"]["checkpoint"] = os.path.normpath(f"/home/me/run/{where}")
    (tmp_path / "found.json").write_text(to_json(found))
    read = functools.partial(find_results, str(tmp_path / "found.json"), located=located, source="run")
    if same:
        assert read()["text_to_video"]["R@1"] == found["text_to_video"]["R@1"]
    else:
        with pytest.raises(UserError, match=r"is of /home/me/other, which is not the run of .*/run/checkpoints/7"):
            read()


@pytest.mark.parametrize(
    ("licences", "id", "text"),
    [
        (("MIT", "MIT"), "mit", "MIT"),
        (("MIT", "Apache-2.0"), "other", "MIT, Apache-2.0"),
        (("", ""), None, "not stated"),
    ],
)
def test_licences_of_the_sources_of_towers(licences, id, text, tmp_path, parameters_only):
    video, words = ({"name": "/home/me/x", "source": "hf:lab/x", "licence": name} for name in licences)
    deeper = {"name": "/home/me/run", "made_by": "pretrain", "sources": {"text": words}}  # itself of a source
    origin = {"made_by": "pretrain", "sources": {"video": video | {"revision": "abc"}, "text": deeper}}
    export(trained_clip(tmp_path / "a", origin=origin), out=tmp_path / "out", options=ExportOptions(format="hf"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1]).get("license") == id and f"licence of the weights: {text}\n" in card
    assert "video tower from: `hf:lab/x` (revision abc)" in card and "text tower from: `run`" in card
    assert "/home/me" not in card


def test_a_licence_that_the_hub_has_no_name_for(tmp_path, parameters_only):
    export(source("open_clip/native", tmp_path / "a"), out=tmp_path / "out", options=ExportOptions(format="open_clip"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "other" and "see the model's page" in card


@pytest.mark.slow
def test_a_run_that_began_with_public_weights(clip_run, tmp_path):
    """Trained for two steps: it is exported by its arguments, with recipe, data and the numbers in its workdir."""
    located = locate(clip_run)
    assert located.spec.origin["made_by"] == "pretrain"
    report(clip_run / "report" / "retrieval.json", step=1)  # of an earlier step: not taken
    made = export(clip_run, out=tmp_path / "out", options=ExportOptions(format="hf"))
    assert made.title == "CLIP of transformers" and max(one.difference for one in made.checks) < 1e-6
    card = (tmp_path / "out" / "README.md").read_text()
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert recipe["optimizer"]["lr"] == 1e-3 and recipe["train"]["steps"] == 2 and recipe["data"]["dir"] == "data"
    assert "step 2" in card and "began with: `clip`" in card and "Prepared data: `data`" in card
    assert "No evaluation came with this checkpoint" in card and str(clip_run.parent) not in card
    report(clip_run / "report" / "retrieval.json", step=2)
    export(clip_run, out=tmp_path / "again", options=ExportOptions(format="hf"))
    assert "| text to video | R@1 |" in (tmp_path / "again" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]["eos_token_id"] == 519
