"""Verification of identity: from a bundle to the report and to pairs of files, on generated clips."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from face_films import BACKGROUNDS, DETECTOR, film
from files import lines
from sklearn.metrics import roc_auc_score
from small_encoder import drawn_encoder

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.prepare.prepare import prepare
from twinreel.demo import identities
from twinreel.encode.media.files import frames_of
from twinreel.finetune.commands import predict
from twinreel.finetune.commands.finetune import finetune
from twinreel.finetune.inputs.feed import Feed

SHORT = [
    *("data.batch_size=8", "data.num_frames=4", "data.eval_video=resize_short(16)|center_crop(16)"),
    *("task.heads=2", "task.embed_dim=6", "task.dropout=0.0", "task.scale=8.0"),
    *("train.steps=6", "train.log_every=1", "train.eval_every=3", "train.checkpoint_every=2"),
    "optimizer.warmup_steps=1",
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Folder of the records, of 12 identities; the files lie in `shapes/` next to it."""
    folder = tmp_path_factory.mktemp("identities")
    jobs = identities.plan(seed=0, test=6, val=4, clips=2, fps=12)
    chosen = {job.clip_id for job in jobs if job.split != "train"} | {job.clip_id for job in jobs[-12:]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identities, "plan", lambda **_: [job for job in jobs if job.clip_id in chosen])
        manifest = identities.write(
            folder / "shapes", test=6, val=4, clips=2, size=32, workers=1, progress=False
        )  # fmt: skip
    prepare(manifest, out=folder / "data", fps=4.0, short_side=20, workers=1)
    return folder / "data"


@pytest.fixture(scope="module")
def start(clips, tmp_path_factory):
    """A function (workdir, overrides) -> report; the towers are random ones."""
    root = tmp_path_factory.mktemp("identify")
    drawn_encoder().save(root / "towers")

    def start(workdir, *overrides, data=clips):
        config = load_config("demo_identify", overrides=[f"data.dir={data}", *SHORT, *overrides])
        return finetune(config, init=root / "towers", workdir=workdir)

    start.root = root
    return start


@pytest.fixture(scope="module")
def tuned(start):
    """Workdir and report of a run on cached features."""
    return start.root / "tuned", start(start.root / "tuned")


def test_the_report_is_of_pairs_of_unseen_identities(tuned, clips):
    workdir, report = tuned
    whole = json.loads((workdir / "report" / "verification.json").read_text())
    rows = Records(clips).rows("test")
    assert report["pairs"] == len(list(itertools.combinations(rows, 2))) == 66 and report["same"] == 6
    assert whole["protocol"]["identities"] == 6 and whole["protocol"]["identities_of_training"] == 6
    assert report["threshold"]["chosen_on"] == "validation pairs" and report["untrained"]["n"] == 66
    assert report["model"]["lfw"]["folds"] == 3
    page = (workdir / "report" / "index.html").read_text()
    pictures = set(re.findall(r'src="([^"]+)"', page))
    assert len(pictures) == 12 and all((workdir / "report" / picture).is_file() for picture in pictures)
    assert "http" not in page.replace("http://www.w3.org", "")
    best = max(lines(workdir, "eval"), key=lambda line: (line["val/AUC"], -line["step"]))
    assert report["protocol"]["checkpoint_step"] == best["step"]


def test_files_have_the_scores_of_their_records(tuned, clips, tmp_path, capsys):
    workdir, report = tuned
    rows = Records(clips).rows("test")
    files = [str(clips.parent / "shapes" / row["file"]) for row in rows[0 : len(rows)]]
    out = tmp_path / "embeddings.npz"
    assert predict.main([str(workdir), *files, "--json", "--workers", "1", "--embeddings", str(out)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["first"], one["second"]) for one in printed] == list(itertools.combinations(files, 2))
    limit = report["threshold"]["value"]
    assert all(one["same"] == (one["score"] >= limit) and one["threshold"] == limit for one in printed)
    truth = [a["labels"][0] == b["labels"][0] for a, b in itertools.combinations(rows, 2)]
    assert roc_auc_score(truth, [one["score"] for one in printed]) == pytest.approx(report["model"]["auc"], abs=1e-9)
    kept = np.load(out, allow_pickle=False)
    assert kept["paths"].tolist() == files
    assert kept["embeddings"][0] @ kept["embeddings"][1] == pytest.approx(printed[0]["score"], abs=1e-5)
    assert predict.main([str(workdir), *files[:2], "--workers", "1", "--threshold", "1.0"]) == 0
    assert "different" in capsys.readouterr().out
    assert twinreel.load(workdir).threshold == limit
    other = next(path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
                 and path.name != str(report["protocol"]["checkpoint_step"]))  # fmt: skip
    assert twinreel.load(other).threshold is None  # the report is not of this one
    for given, wanted in (
        ([files[0]], "give two or more, got 1"),
        ([*files[:2], "--threshold", "1.5"], "must be a cosine from -1 to 1"),
        ([*files[:2], "--text", "red"], "no text asks the model"),
    ):
        with pytest.raises(UserError, match=wanted):
            predict.main([str(workdir), *given, "--workers", "1"])


def test_a_model_of_faces_cuts_them_out_of_files(tuned, tmp_path, monkeypatch):
    """With the detector that it is given, to which the spec of a run holds no path."""
    workdir, _ = tuned
    files = [film(tmp_path / f"{name}.mp4", colour) for name, colour in BACKGROUNDS.items()]
    model = twinreel.load(workdir)
    with pytest.raises(UserError, match=r"the model .* was trained on whole frames; leave it out"):
        model.crop_faces(DETECTOR)
    decode = {**model.spec.input.decode, "crop_faces": True}
    model.spec = model.spec.replace(input=dataclasses.replace(model.spec.input, decode=decode))
    with pytest.raises(UserError, match=r"faces that `twinreel prepare --crop_faces` cut out; give the detector"):
        model.predict(files, workers=1)
    with pytest.raises(UserError, match="there is no face detector at"):
        model.crop_faces(tmp_path / "absent.onnx")
    model.crop_faces(DETECTOR)
    options = DecodeOptions(fps=decode["fps"], short_side=decode["short_side"], crop_faces=str(DETECTOR))
    clips = [frames_of(model.spec.input, clip=decode_clip(file, options=options)) for file in files]
    wanted = model.embed_local({"video": np.stack([*clips, *clips[:1] * 5])})["embedding"][: len(files)]
    np.testing.assert_allclose(model.embed(files, workers=1), wanted, atol=1e-5)
    monkeypatch.setattr(predict, "open_predictor", lambda *_, **__: twinreel.load(workdir))
    with pytest.raises(UserError, match="was trained on whole frames"):
        predict.main([str(workdir), *map(str, files), "--crop_faces", str(DETECTOR)])


def test_a_run_that_dies_goes_on_as_if_nothing_was(start, tuned, monkeypatch):
    """From the records instead of the features: the same clips in the same order, before and after."""
    train = Feed.train

    def dying(self, clips, *, start_step):
        for number, batch in enumerate(train(self, clips, start_step=start_step)):
            if number == 5:
                raise RuntimeError("killed")
            yield batch

    monkeypatch.setattr(Feed, "train", dying)
    again = start.root / "again"
    with pytest.raises(RuntimeError, match="killed"):
        start(again, "task.cache_features=False")
    monkeypatch.setattr(Feed, "train", train)
    report = start(again, "task.cache_features=False")
    losses = [{line["step"]: line["loss"] for line in lines(folder, "train")} for folder in (tuned[0], again)]
    assert sorted(losses[0]) == list(range(1, 7)) and losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert report["model"]["auc"] == pytest.approx(tuned[1]["model"]["auc"], abs=1e-6)


def test_identities_are_held_out_and_open_towers_have_no_figures_as_they_were(start, tmp_path, clips):
    ids = [row["clip_id"] for row in Records(clips).rows("test")]
    pairs = tmp_path / "pairs.jsonl"
    report = start(
        start.root / "open",
        *("task.val_split=''", "task.test_split=''", "task.holdout=0.34", "task.train_towers=True"),
        *("task.pool=mean", "task.loss=cosface", "train.steps=1", "train.eval_every=1"),
    )
    assert report["protocol"]["identities"] == 2 and report["protocol"]["identities_of_training"] == 4
    assert report["untrained"] is None and report["threshold"]["chosen_on"] == "these pairs"
    pairs.write_text(json.dumps({"first": ids[0], "second": "nobody", "same": True}) + "\n")
    with pytest.raises(UserError, match=r"clip in line 1 of .*pairs\.jsonl: 'nobody'"):
        start(start.root / "refused", f"task.pairs={pairs}")


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("task.loss=arcfase", r"config\.task\.loss: 'arcfase'.*did you mean 'arcface'"),
        ("task.pool=attentve", r"config\.task\.pool: 'attentve'.*did you mean 'attentive'"),
        ("task.margin=2.0", r"config\.task\.margin=2 must be from 0 to 1\.5"),
        ("task.identity=label", r"config\.task\.identity='label'; wanted 'labels', or 'meta\.NAME'"),
        ("task.identity=meta.size", r"identities are trained on and are in split 'val' .*: large, small.*holdout"),
        ("task.identity=meta.none", "has 0 identities, and verification needs two"),
        ("task.min_count=3", r"0 identities of split 'train' have at least config\.task\.min_count=3"),
        ("task.val_split=train", r"6 identities are trained on and are in split 'train' \(config\.task\.val_split\)"),
        ("task.test_split=tset", "did you mean 'test'"),
        ("task.heads=3", "must be a multiple of heads=3"),
    ],
)
def test_mistakes_are_named_before_the_workdir_is_taken(start, override, wanted):
    with pytest.raises(UserError, match=wanted):
        start(start.root / "refused", override)
    assert not (start.root / "refused").exists()
