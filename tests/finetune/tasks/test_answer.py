"""Video question answering from a bundle to report and predictions, on the generated clips and their questions."""

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from files import lines
from flax import nnx
from small_encoder import drawn_encoder
from tower_loops import drawn

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.text.tokenizer import tokenizer_from_meta
from twinreel.encode.media.files import clips_of_files, sound_of_files
from twinreel.finetune.commands import predict
from twinreel.finetune.commands.finetune import finetune, open_task
from twinreel.finetune.reports.answers import write_answers
from twinreel.models.heads.answers import Seen

SHORT = [
    *("data.batch_size=8", "data.num_frames=4", "task.width=16", "task.heads=2", "task.depth=1", "train.steps=4"),
    *("train.log_every=1", "train.eval_every=2", "train.checkpoint_every=2", "optimizer.warmup_steps=1"),
    *(
        "data.context_length=16",
        "task.sound_tower={}",
        "task.trainable=()",
        "data.audio_seconds=0.5",
        "task.vocabulary=12",
        "task.questions_per_clip=0",
    ),
]


@pytest.fixture(scope="module")
def start(tiny_data, tmp_path_factory):
    """A function (workdir, overrides) -> report; the towers are random ones. `task` of it builds the task alone."""
    root = tmp_path_factory.mktemp("answers")
    drawn_encoder().save(root / "towers")

    def config(*overrides, data=tiny_data):
        return load_config("demo_answer", overrides=[f"data.dir={data}", *SHORT, *overrides])

    def start(workdir, *overrides, **given):
        return finetune(config(*overrides, **given), init=root / "towers", workdir=root / workdir)

    def task(*overrides, **given):
        whole = config(*overrides, **given).to_dict()
        return open_task(whole, init=root / "towers", workdir=root / "none", say=lambda _: None)[-1]

    start.root, start.task = root, task
    return start


@pytest.fixture(scope="module")
def model(answered):
    """The model of that run."""
    return twinreel.load(answered[0])


@pytest.fixture(scope="module")
def answered(start):
    """Workdir and report of a closed vocabulary, with the checkpoint's sound tower and cached features."""
    return start.root / "closed", start("closed")


def test_the_report_counts_every_question_of_the_test_split(answered, tiny_data):
    workdir, report = answered
    rows = Records(tiny_data).rows("test")
    asked = [(row["clip_id"], q["question"], q["answers"][0], q["type"]) for row in rows for q in row["questions"]]
    whole = json.loads((workdir / "report" / "answers.json").read_text())
    examples = whole["examples"]
    assert [(one["clip_id"], one["question"], one["right"], one["type"]) for one in examples] == asked
    assert list(report["rows"]) == [
        *("model", "question only", "most frequent answer"),
        *("frames shuffled", "another clip's frames", "another clip's sound"),
    ]
    assert report["rows"] == whole["rows"]
    trained = Counter(q["answers"][0] for row in Records(tiny_data).rows("train") for q in row["questions"])
    vocabulary = {name for name, _ in trained.most_common(12)}
    model = report["rows"]["model"]
    assert model["vocabulary"] == len(vocabulary) and report["protocol"]["questions"] == len(asked)
    inside = np.mean([answer in vocabulary for *_, answer, _ in asked])
    assert model["answerable"] == pytest.approx(100 * inside) and inside < 1
    assert model["answerable_only"]["top1"] == pytest.approx(model["accuracy"] / inside)
    by_hand = [one["answer"] == one["right"] for one in examples]
    assert model["accuracy"] == pytest.approx(100 * np.mean(by_hand))
    for kind, one in model["per_type"].items():
        own = [right for right, example in zip(by_hand, examples, strict=True) if example["type"] == kind]
        assert one == {"n": len(own), "accuracy": pytest.approx(100 * np.mean(own))}
    usual = {"": Counter()}  # the most frequent answer of each type, by hand; "" of all types
    for row in Records(tiny_data).rows("train"):
        for kind, answer in ((kind, q["answers"][0]) for q in row["questions"] for kind in ("", q["type"])):
            if answer in vocabulary:
                usual.setdefault(kind, Counter())[answer] += 1
    hits = []
    for *_, answer, kind in asked:
        counts = usual.get(kind, usual[""])
        top = [name for name, count in counts.items() if count == max(counts.values())]
        hits.append((answer in top) / len(top))
    assert report["rows"]["most frequent answer"]["accuracy"] == pytest.approx(100 * np.mean(hits))
    page = (workdir / "report" / "index.html").read_text()
    assert "http" not in page and page.count('class="timeline"') == len(rows)


def test_validation_chooses_the_checkpoint(answered):
    workdir, report = answered
    values = [(line["val/accuracy"], -line["step"]) for line in lines(workdir, "eval")]
    assert report["protocol"]["checkpoint_step"] == -max(values)[1] and len(values) == 2


def test_questions_are_answered_in_files(answered, tiny_data, monkeypatch, capsys, model):
    clip = Records(tiny_data).rows("test")[0]
    file, texts = str(tiny_data.parent / "videos" / clip["file"]), ["red?", "a disc?"]
    asked = [flag for text in texts for flag in ("--question", text)]
    capsys.readouterr()
    assert predict.main([str(answered[0]), file, *asked, "--json", "--top_k", "2"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["path"], one["question"]) for one in printed] == [(file, text) for text in texts]
    monkeypatch.setattr(predict, "open_predictor", lambda checkpoint, *, files: model)  # it is loaded once
    given, tokenizer = model.spec.input, tokenizer_from_meta(dict(model.spec.tokenizer))
    [(rows, _)] = clips_of_files(given, [Path(file)], batch_size=1)
    [(audio, samples)] = sound_of_files(given, [Path(file)], batch_size=1)
    ids, mask, _ = tokenizer.encode(texts, context_length=16)
    both = {"video": rows["video"], "audio": audio, "audio_samples": samples}
    both = {key: jnp.asarray(np.repeat(value, 2, axis=0)) for key, value in both.items()}
    plain = nnx.jit(lambda model, clips, ids, mask: model.answer(model.see(**clips), text=ids, mask=mask).joint)
    logits = np.asarray(plain(model.model, both, jnp.asarray(ids), jnp.asarray(mask)), np.float64)
    for shown, row, one in zip(printed, logits, model.predict([file], questions=texts), strict=True):
        wanted = np.exp(row) / np.exp(row).sum()
        np.testing.assert_allclose([one["scores"][name] for name in model.labels], wanted, rtol=1e-3)
        assert shown["answer"] == one["answer"] == model.labels[wanted.argmax()] and len(shown["scores"]) == 2
    assert predict.main([str(answered[0]), file, *asked]) == 0 and "question" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"answers questions \(--question\)"):
        predict.main([str(answered[0]), file])
    with pytest.raises(UserError, match="leave --option out"):
        predict.main([str(answered[0]), file, *asked, "--option", "a"])
    with pytest.raises(UserError, match="no text asks the model"):
        predict.main([str(answered[0]), file, *asked, "--text", "a"])
    with pytest.raises(UserError, match="more than the 16 tokens that the text tower reads; shorten it"):
        predict.main([str(answered[0]), file, "--question", "what " * 30])
    every = [q["question"] for row in Records(tiny_data).rows("test") for q in row["questions"]]
    long = tokenizer.encode(every, context_length=100)[1].sum(axis=1) > 16
    assert answered[1]["protocol"]["texts_cut"] == long.sum()
    with pytest.raises(UserError, match=r"write questions=\['why'\]"):
        model.predict([file], questions="why")


def test_a_resumed_run_sees_the_rows_that_it_would_have_seen(start, answered, model):
    """The same questions and answers, sound included, from whatever step; with the features as with the frames."""
    task = start.task()
    whole = list(itertools.islice(task.batches(0), 5))
    resumed = next(task.batches(4))
    assert resumed.keys() == whole[4].keys() >= {"question", "audio", "label", "video"}
    for name, value in resumed.items():
        np.testing.assert_array_equal(value, whole[4][name], err_msg=name)
    assert not np.array_equal(whole[3]["question"], resumed["question"])
    there = sorted((answered[0] / "features").iterdir())
    task.feed.cache(train=task.trained_on(), evaluated=[], model=lambda: model.model, folder=answered[0] / "features")
    assert sorted((answered[0] / "features").iterdir()) == there  # of the same tower: nothing is computed again
    cached = next(task.batches(4))
    assert cached.keys() ^ resumed.keys() == {"tokens", "video"}
    for name in cached.keys() & resumed.keys():
        np.testing.assert_array_equal(cached[name], resumed[name], err_msg=name)


def time_tokens(rows):
    """What a frozen video tower of the test's width has made of clips."""
    return np.random.default_rng(0).normal(size=(rows, 4, 8)).astype(np.float32)


def rewritten(data, folder, change):
    """Copy a data set with other lines of clips.jsonl."""
    shutil.copytree(data, folder)
    rows = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
    (folder / "clips.jsonl").write_text("".join(json.dumps(change(row)) + "\n" for row in rows))
    return folder


def test_options_are_chosen_among(start, tiny_data, monkeypatch, capsys):
    """Of clips without captions, questions with two or three options; a model of random parameters."""
    numbers = itertools.count()

    def change(row):
        kept = []
        for q in row["questions"][:3]:
            number = next(numbers)
            options = [q["answers"][0], "grey", "nothing"][: 2 + number % 2]
            place = number % len(options)
            options[0], options[place] = options[place], options[0]
            kept.append({**q, "answers": [], "options": options, "correct": place})
        return {**row, "captions": [], "questions": kept}

    data = rewritten(tiny_data, start.root / "choices", change)
    task = start.task("task.kind=choice", "data.audio_seconds=0.0", data=data)
    model = drawn(lambda: task.objective.init(nnx.Rngs(0)))
    predictor, file = task.predictor(model), str(tiny_data.parent / "videos" / Records(data).rows("test")[0]["file"])
    monkeypatch.setattr(predict, "open_predictor", lambda checkpoint, *, files: predictor)
    flags = ["choice", file, "--question", "what falls?"]
    capsys.readouterr()
    assert predict.main([*flags, "--option", "disc", "--option", "star", "--json"]) == 0
    [printed] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(printed["scores"]) == ["disc", "star"] and sum(printed["scores"].values()) == pytest.approx(1)
    with pytest.raises(UserError, match=r"chooses among options \(--option\), got 1"):
        predict.main([*flags, "--option", "disc"])
    batch = next(task.batches(0))
    seen, own = {"tokens": time_tokens(8)}, task.splits.train.only(batch["example"])
    rows = {key: value for key, value in batch.items() if key not in ("clip_index", "video")} | seen
    loss, _ = nnx.jit(lambda model, rows: task.objective.loss(model, rows, rngs=None))(
        model, {key: jnp.asarray(value) for key, value in rows.items()}
    )
    found = predictor.scores(seen, texts=own.asked(), counts=batch["options_mask"].sum(axis=1).tolist())
    assert task._figures(found[0], questions=own)["chance"] == pytest.approx(
        100 * np.mean([1 / len(one) for one in own.options])
    )
    logs = [[np.log(one[label]) for one, label in zip(part, batch["label"], strict=True)] for part in found]
    assert float(loss) == pytest.approx(-np.sum(np.mean(logs, axis=1)), rel=1e-4)


def test_several_questions_of_a_clip_share_a_row(start, tiny_data):
    """Each once in an epoch that takes all; the loss is that of as many rows with one question each."""
    task = start.task("task.questions_per_clip=9")
    train, batches = task.splits.train, task.batches(0)
    texts = Counter(train.texts[i] for i in range(len(train)))
    epoch, batch = Counter(), None
    for batch in itertools.islice(batches, 3):
        assert batch["question"].shape[:2] == batch["label"].shape == batch["asked"].shape == (8, 9)
        for clip, asked, ids in zip(batch["clip_index"], batch["asked"], batch["question"], strict=True):
            own = [train.texts[i] for i in np.flatnonzero(train.record == clip)]
            assert asked.sum() == len(own)
            expected, _ = task._encode(own)
            np.testing.assert_array_equal(ids[asked], expected)
            epoch.update(own)
    assert epoch == texts
    few = start.task("task.questions_per_clip=3")
    one, two = itertools.islice(few.batches(1), 2)
    np.testing.assert_array_equal(next(few.batches(2))["question"], two["question"])
    assert one["asked"].all() and not np.array_equal(one["question"], two["question"])
    model = drawn(lambda: few.objective.init(nnx.Rngs(0)))
    loss = nnx.jit(lambda model, rows: few.objective.loss(model, rows, rngs=None))
    rows = {key: jnp.asarray(value) for key, value in one.items() if key not in ("clip_index", "video")}
    rows |= {"asked": rows["asked"].at[0, 1].set(False), "tokens": jnp.asarray(time_tokens(8))}
    alone = {key: jnp.repeat(rows[key], 3, axis=0) for key in ("tokens", "audio", "audio_samples", "valid")}
    alone |= {key: rows[key].reshape(24, *rows[key].shape[2:]) for key in ("question", "question_mask", "label")}
    alone["valid"] &= rows["asked"].reshape(-1)
    (found, metrics), (wanted, known) = jax.device_get([loss(model, rows), loss(model, alone)])
    assert found == pytest.approx(wanted, rel=1e-5)
    assert {key: float(x) for key, x in metrics.items()} == pytest.approx(
        {k: float(x) for k, x in known.items()}, rel=1e-5
    )


def test_answers_are_written(start, tiny_data, monkeypatch, capsys):
    """By a model of random parameters: the loss, and what is written, against the logits of whole texts."""
    task = start.task("task.kind=generated", "data.audio_seconds=0.0")
    model = drawn(lambda: task.objective.init(nnx.Rngs(0)))
    batch = next(task.batches(0))
    train, tokenizer = task.splits.train, task._context.tokenizer
    right = [train.right[i] for i in batch["example"]]
    assert [
        tokenizer.decode(ids[mask]) for ids, mask in zip(batch["answer"], batch["answer_mask"], strict=True)
    ] == right
    predictor = task.predictor(model)
    seen = {"tokens": time_tokens(8)}
    texts = [train.texts[i] for i in batch["example"]]
    joint, alone = predictor.write(seen, texts=texts)
    head = model.head

    @nnx.jit
    def logits_of(model, batch, text):
        read = model.read(Seen(batch["tokens"]), text=batch["question"], mask=batch["question_mask"])
        states, _, _ = model.head.states(read, answer=text, mask=jnp.ones(text.shape, bool))
        return {name: jax.nn.log_softmax(head.writers[name].logits(x)) for name, x in states.items()}

    given = {key: jnp.asarray(batch[key]) for key in ("question", "question_mask")} | {"tokens": seen["tokens"]}
    for written, name in ((joint, "joint"), (alone, "question_only")):
        text = np.zeros((8, task.answer_length), np.int32)
        for place in range(task.answer_length):  # greedy, by the whole text each time
            logp = np.asarray(logits_of(model, given, jnp.asarray(text))[name], np.float64)
            text[:, place] = logp[:, place].argmax(axis=-1)
        for row, one in enumerate(written):
            ends = np.flatnonzero(text[row] == tokenizer.eos_id)
            length = int(ends[0]) if len(ends) else task.answer_length
            assert one.answer == tokenizer.decode(text[row, :length]).strip()
            kept = range(min(length + 1, task.answer_length))
            assert np.log(one.score) == pytest.approx(sum(logp[row, at, text[row, at]] for at in kept), rel=1e-4)
    rows = {key: value for key, value in batch.items() if key not in ("clip_index", "video")} | seen
    loss, metrics = nnx.jit(lambda model, rows: task.objective.loss(model, rows, rngs=None))(
        model, {key: jnp.asarray(value) for key, value in rows.items()}
    )
    logp = logits_of(model, given, jnp.asarray(batch["answer"]))
    for name in ("joint", "question_only"):
        each = np.take_along_axis(np.asarray(logp[name])[:, :-1], batch["answer"][..., None], axis=2)[..., 0]
        assert float(metrics[f"loss_{name}"]) == pytest.approx(-each[batch["answer_mask"]].mean(), rel=1e-4)
    assert float(loss) == pytest.approx(float(metrics["loss_joint"] + metrics["loss_question_only"]))
    shown = task.splits.report.only(np.arange(8))
    figures = {name: task._figures(found, questions=shown) for name, found in (("model", joint), ("other", alone))}
    figures["question only"] = figures["most frequent answer"] = figures.pop("other")
    given = {"records": task._context.records, "protocol": {"dataset": "tiny"}}
    out = start.root / "written"
    write_answers(figures, scores=joint, questions=shown, vocabulary=(), out=out, **given)
    examples = json.loads((out / "answers.json").read_text())["examples"]
    assert [one["answer"] for one in examples] == [one.answer for one in joint]
    hits = [one["answer"] == right for one, right in zip(examples, shown.right, strict=True)]
    assert figures["model"]["accuracy"] == pytest.approx(100 * np.mean(hits))
    assert "exact match" in (out / "index.html").read_text()
    file = str(tiny_data.parent / "videos" / Records(tiny_data).rows("test")[0]["file"])
    monkeypatch.setattr(predict, "open_predictor", lambda checkpoint, *, files: predictor)
    capsys.readouterr()
    assert predict.main(["written", file, "--question", "what falls?", "--json"]) == 0
    [printed] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert set(printed) == {"path", "question", "answer", "score"} and 0 < printed["score"] < 1
    with pytest.raises(UserError, match="writes its answers; leave --option out"):
        predict.main(["written", file, "--question", "what falls?", "--option", "a"])


@pytest.mark.parametrize(
    ("change", "override", "wanted"),
    [
        (lambda q: None, "task.kind=closed", "no clip of split 'train' has a question"),
        (lambda q: {**q, "answers": []}, "task.kind=closed", "none of the .* with an answer"),
        (lambda q: q, "task.kind=choice", r"with options .*; \d+ of them suit config.task.kind='closed'"),
        (lambda q: q, "task.min_count=1000", "the vocabulary has 0 answers"),
        (lambda q: q, "task.kind=open", r"config\.task\.kind: 'open'"),
        (lambda q: q, "task.questions_per_clip=-1", "questions_per_clip=-1 must be 0, or a number"),
        (lambda q: q, "task.wordnet=nowhere", "is for answers that are written"),
        (lambda q: q, "task.loss=hinge", r"config\.task\.loss: 'hinge'"),
        (lambda q: q, "task.sound_tower={'family':'cnn'}", "has a sound tower already"),
        (lambda q: q, "task.heads=3", "a multiple of config.task.heads=3"),
        (lambda q: q, "data.eval_sampling=first", "does not spread the frames"),
    ],
)
def test_mistakes_are_named_before_the_workdir_is_taken(start, tiny_data, tmp_path, change, override, wanted):
    def changed(row):
        return {**row, "questions": [new for q in row["questions"] if (new := change(q)) is not None]}

    with pytest.raises(UserError, match=wanted):
        start("refused", override, data=rewritten(tiny_data, tmp_path / "data", changed))
    assert not (start.root / "refused").exists()


def test_a_test_split_of_other_answers_is_named(start, tiny_data, tmp_path):
    def changed(row):
        other = [{**q, "answers": [f"the {answer}" for answer in q["answers"]]} for q in row["questions"]]
        return {**row, "questions": other if row["split"] == "test" else row["questions"]}

    with pytest.raises(UserError, match=r"none of the \d+ answers of split 'test' is in the vocabulary"):
        start("refused", data=rewritten(tiny_data, tmp_path / "data", changed))
