"""`evaluate --benchmark` of classification and multiple choice: data, coverage, marks and deviations."""

import csv
import dataclasses
import hashlib
import io
import json

import numpy as np
import pytest
from fake_encoder import Encoder
from rich.console import Console
from sklearn.metrics import average_precision_score

from twinreel.base.errors import UserError
from twinreel.data.prepare.benchmark import prepare_benchmark
from twinreel.data.sources.registry import get_source
from twinreel.evaluate.evaluate import main
from twinreel.evaluate.measures.zero_shot_rules import RULES
from twinreel.evaluate.protocols import choice_benchmarks, class_benchmarks
from twinreel.evaluate.protocols.class_benchmarks import CLASS_BENCHMARKS
from twinreel.evaluate.protocols.class_names import names_sha256, to_words
from twinreel.evaluate.protocols.templates import shipped

LISTS = {
    "classInd.txt": "1 ApplyEyeMakeup\n2 YoYo\n",
    "trainlist01.txt": "YoYo/v_YoYo_g08_c01.avi 2\n",
    "testlist01.txt": "ApplyEyeMakeup/v_A_g01_c01.avi\nYoYo/v_Y_g01_c01.avi\nYoYo/v_Y_g02_c01.avi\n",
}
CHOICES = [
    {"image": "video1.mp4", "caption": ["a dog", "a cat"], "answer": 1},
    {"image": "video2.mp4", "caption": ["a", "b", "c"], "answer": 0},
]
SEVERAL = [
    {"image": "video1.mp4", "option": ["run", "sit", "jump"], "answer": [1, 0, 1]},
    {"image": "video2.mp4", "option": ["run", "sit", "jump"], "answer": [0, 1, 0]},
]


@pytest.fixture(scope="module")
def data(tmp_path_factory, media):
    """Folders of prepared clips: `ucf101` (three test clips of two classes), `part` (one class), `mc`, `several`."""
    home = tmp_path_factory.mktemp("classes")
    (home / "lists").mkdir()
    for name, text in LISTS.items():
        (home / "lists" / name).write_text(text)
    (home / "lists" / "msrvtt_mc_test.json").write_text(json.dumps(CHOICES))
    (home / "lists" / "charades_mc_test.json").write_text(json.dumps(SEVERAL))
    for number, name in enumerate(("v_A_g01_c01", "v_Y_g01_c01", "v_Y_g02_c01")):
        media.write(home / "ucf101" / f"{name}.mp4", media.grey(*range(20 + 5 * number, 180, 20)))
    for name in ("v_Y_g01_c01", "v_Y_g02_c01"):
        media.write(home / "part" / f"{name}.mp4", media.grey(*range(30, 180, 20)))
    for name in ("video1", "video2"):
        media.write(home / "mc" / f"{name}.mp4", media.grey(*range(40, 180, 20)))
    sources = {"ucf101": "ucf101", "part": "ucf101", "mc": "msrvtt_mc", "several": "charades_mc"}
    for name, source in sources.items():
        prepare_benchmark(
            source,
            annotations=home / "lists",
            videos=home / ("mc" if name == "several" else name),
            out=home / f"{name}_set",
            splits=["test"],
            fps=4,
            short_side=24,
            workers=1,
            console=Console(file=io.StringIO()),
        )
    return {name: home / f"{name}_set" for name in sources}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """UCF101 has two classes and three clips here, MSR-VTT-MC two options."""
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda path: Encoder(context_length=64))
    digest = names_sha256(["apply eye makeup", "yo yo"])
    change = {"videos": 3, "classes": 2, "classes_sha256": digest, "frames": {"fake": 4}}
    for number in (1, 2):
        entry = CLASS_BENCHMARKS[f"ucf101-{number}"]
        monkeypatch.setitem(class_benchmarks.CLASS_BENCHMARKS, entry.name, dataclasses.replace(entry, **change))
    entry = choice_benchmarks.CHOICE_BENCHMARKS["msrvtt-mc"]
    monkeypatch.setitem(choice_benchmarks.CHOICE_BENCHMARKS, entry.name, dataclasses.replace(entry, choices=2))


def run(data, out, *argv, name="ucf101-1", file="zero_shot"):
    assert main(["fake/run", "--data", str(data), "--out", str(out), "--benchmark", name, *argv]) == 0
    return json.loads((out / f"{file}.json").read_text())


def test_entries_agree_with_the_sources_and_the_template_sets():
    for entry in CLASS_BENCHMARKS.values():
        assert entry.templates in shipped() and entry.class_names in ("as_is", "words")
        assert entry.rule in RULES
        if entry.source == "ucf101":
            continue
        source = get_source(entry.source)
        assert str(entry.classes) in source.title or entry.classes == 174


@pytest.mark.parametrize(
    ("name", "file"), [("kinetics400", "kinetics_400"), ("ucf101-3", "ucf_101"), ("hmdb51-1", "hmdb_51")]
)
def test_class_names_are_those_of_the_published_lists(name, file, real_dir):
    entry = CLASS_BENCHMARKS[name]
    with (real_dir / "annotations" / "labels" / f"{file}_labels.csv").open() as lines:
        names = sorted(to_words(row["name"]).lower() for row in csv.DictReader(lines))
    assert hashlib.sha256("".join(f"{one}\n" for one in names).encode()).hexdigest() == entry.classes_sha256
    assert name == "ucf101-3" or len(names) == entry.classes


def test_a_benchmark_has_its_templates_and_its_way_to_read_names(data, tmp_path, capsys):
    found = run(data["ucf101"], tmp_path)
    protocol = found["protocol"]
    assert (protocol["template_set"], protocol["class_names"], protocol["split"]) == ("clip_ucf101", "words", "test")
    assert [row["read_as"] for row in found["per_class"]] == ["apply eye makeup", "yo yo"]
    assert protocol["benchmark_protocol"]["name"] == "ucf101-1" and protocol["deviations"] == []
    assert (found["coverage"]["classes_found"], found["coverage"]["expected"]) == (2, 3)
    assert "marked" not in found and "*" not in capsys.readouterr().out


def test_what_differs_from_the_protocol_is_named(data, tmp_path):
    flags = ("--templates", "plain", "--class_names", "as_is", "--windows", "2")
    found = run(data["ucf101"], tmp_path, *flags)
    assert found["protocol"]["deviations"] == [
        "windows is 2, the protocol has 1",
        "templates is 'plain', the protocol has 'clip_ucf101'",
        "class_names is 'as_is', the protocol has 'words'",
    ]


def test_missing_clips_and_classes_need_the_flag_and_mark_the_figures(data, tmp_path, capsys):
    with pytest.raises(UserError, match=r"66.67 %: 1 of 3 clips are missing; 1 classes have clips, the list has 2"):
        run(data["part"], tmp_path)
    found = run(data["part"], tmp_path, "--allow_missing")
    assert found["marked"] is True and found["accuracy"]["marked"] is True
    assert "the names of the classes are not the 2 that papers use" in found["protocol"]["deviations"]
    assert "100.00*" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "argv", "message"),
    [
        ("ucf101-2", [], r"for 'ucf101 fold=1', --benchmark ucf101-2 needs 'ucf101 fold=2'; prepare it with"),
        ("hmdb51-1", [], r"needs 'hmdb51 fold=1'"),
        ("ucf101-1", ["--split", "train"], "--split train contradicts --benchmark ucf101-1"),
        ("ucf101", [], "unknown benchmark .*'ucf101'; did you mean 'ucf101-"),
        ("ucf101-1", ["--multiple_choice"], "belongs to zero-shot classification, and the flags ask for multiple"),
        ("ucf101-1", ["--captions", "first"], "--captions belongs to retrieval"),
    ],
)
def test_what_contradicts_the_protocol_is_refused(name, argv, message, data, tmp_path):
    with pytest.raises(UserError, match=message):
        run(data["ucf101"], tmp_path, *argv, name=name)


def test_options_of_which_several_are_right_are_measured_by_map_of_their_softmax(data, tmp_path, monkeypatch):
    """InternVideo2's figure of Charades-MC: a softmax over the options of each video, AP of each option over videos."""
    entry = dataclasses.replace(CLASS_BENCHMARKS["charades-mc"], classes=3, frames={"fake": 4})
    monkeypatch.setitem(class_benchmarks.CLASS_BENCHMARKS, entry.name, entry)
    found = run(data["several"], tmp_path, name="charades-mc")
    protocol, figures = found["protocol"], found["multilabel"]
    assert (protocol["rule"], protocol["templates"], protocol["deviations"]) == ("softmax_per_template", ["{}"], [])
    assert (found["coverage"]["classes_found"], figures["labels_per_clip"]) == (3, 1.5)
    with np.load(tmp_path / "zero_shot.npz") as arrays:
        unit = [rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (arrays["video"], arrays["class_text"])]
    logits = protocol["scale"] * unit[0] @ unit[1][:, 0].T
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    classes = [row["name"] for row in found["per_class"]]
    right = np.array([[one["answer"][one["option"].index(name)] for name in classes] for one in SEVERAL])
    want = np.mean([average_precision_score(*both) for both in zip(right.T, scores.T, strict=True)])
    assert figures["mAP"] == pytest.approx(100 * want)
    other = run(data["several"], tmp_path / "other", "--rule", "mean_of_cosines", name="charades-mc")
    assert other["protocol"]["deviations"] == ["rule is 'mean_of_cosines', the protocol has 'softmax_per_template'"]


def test_multiple_choice_of_a_benchmark(data, tmp_path, capsys):
    found = run(data["mc"], tmp_path, name="msrvtt-mc", file="multiple_choice")
    assert found["multiple_choice"]["n"] == 2 and found["coverage"]["ids_match"] is None
    assert found["protocol"]["deviations"] == ["1 of 2 questions have other than 2 options"]
    with pytest.raises(UserError, match="--split val contradicts --benchmark msrvtt-mc"):
        run(data["mc"], tmp_path, "--split", "val", name="msrvtt-mc")
