"""The verb, with runs that take no time: a script that writes metrics.jsonl as the engine does."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import ml_collections
import pytest

pytest.importorskip("optuna")

from twinreel.base.errors import UserError
from twinreel.sweep import child
from twinreel.sweep.sweep import _metric, main
from twinreel.sweep.trial import STOPPED, Evaluations, RunSpec, last_lines, log_of, run_trial

RUN = r"""
import json, os, signal, sys, time
flags = dict(one.removeprefix("--").split("=", 1) for one in sys.argv[1:])
work = flags["workdir"]
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
lr = float(flags.get("config.optimizer.lr", 0.1))
share = float(flags.get("config.data.share", 1.0))
if lr == 0.3:
    print("error: config.optimizer.lr is a bad one"); sys.exit(2)
path = os.path.join(work, "metrics.jsonl")
lines = open(path).readlines() if os.path.exists(path) else []
done = json.loads(lines[-1])["step"] // 10 if lines else 0
if lr == 0.5 and not done:  # out of memory, once
    open(path, "w").write(json.dumps({"step": 10, "kind": "eval", "val/score": 0.1}) + "\n")
    os.kill(os.getpid(), signal.SIGKILL)
with open(path, "a") as file:
    for step in range(10 * (done + 1), 50, 10):
        print(json.dumps({"step": step, "kind": "train", "loss": 1.0}), file=file, flush=True)
        score = share * (1 - lr) * step / 40 + 0.01 * int(flags.get("config.seed", 0))
        print(json.dumps({"step": step, "kind": "eval", "val/score": score, "val/loss": None}), file=file, flush=True)
        time.sleep(float(os.environ.get("STEP_S", 0)))
        if stop:
            sys.exit(75)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    """Runs are this script's; returns the folder of the test, which has a space of learning rates."""
    script = tmp_path / "run.py"
    script.write_text(RUN)

    def command(self, *, descriptor):
        return [sys.executable, "-S", str(script), *self.flags[1:], f"--workdir={self.workdir}"]

    monkeypatch.setattr(RunSpec, "command", command)
    monkeypatch.setattr("twinreel.sweep.trial._POLL_S", 0.02)
    monkeypatch.setattr("twinreel.sweep.runner._WAIT_S", 0.02)
    (tmp_path / "space.toml").write_text("optimizer.lr = [0.1, 0.2, 0.4, 0.5]\n")
    return tmp_path


def flags(folder: Path, *more: str) -> list[str]:
    base = ["--config", "demo", "--metric", "val/score", "--storage", "journal", "--pruner", "none"]
    return [*base, "--workdir", str(folder / "sweep"), "--space", str(folder / "space.toml"), *more]


def results(folder: Path) -> dict:
    return json.loads((folder / "sweep" / "results.json").read_text())


def test_a_grid_from_trials_to_the_page(fake, capsys):
    assert main(flags(fake, "--sampler", "grid", "--processes", "2", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == results(fake)
    assert [one["values"]["optimizer.lr"] for one in found["trials"]] == [0.1, 0.2, 0.4, 0.5]
    assert found["best"]["value"] == pytest.approx(0.9) and found["best"]["step"] == 40
    assert found["best"]["overrides"] == ["optimizer.lr=0.1"]
    assert [step for step, _ in found["best"]["curve"]] == [10, 20, 30, 40]
    assert found["trials"][-1]["state"] == "complete"  # its process was killed once, and its run resumed
    assert "--config.optimizer.lr=0.1" in found["best"]["command"] and " pretrain " in found["best"]["command"]
    assert "--config.train.best_metric=val/score" in found["best"]["command"]
    page = (fake / "sweep" / "index.html").read_text()
    assert page.count("<svg") == 2 and "--config.optimizer.lr=0.1" in page and "http" not in page
    assert main(flags(fake, "--sampler", "grid")) == 0  # nothing is left to do
    assert "4 complete" in capsys.readouterr().out


def test_trials_worse_than_others_are_stopped_and_their_runs_kept(fake, monkeypatch):
    monkeypatch.setenv("STEP_S", "0.15")
    (fake / "space.toml").write_text("optimizer.lr = [0.1, 0.11, 0.12, 0.13, 0.9]\n")
    assert main(flags(fake, "--sampler", "grid", "--pruner", "median", "--storage", "sqlite")) == 0
    worst = results(fake)["trials"][-1]
    assert worst["state"] == "pruned" and worst["values"]["optimizer.lr"] == 0.9
    assert len(worst["curve"]) < 4 and (Path(worst["workdir"]) / "metrics.jsonl").is_file()


def test_a_learning_curve_has_the_best_values_and_other_seeds(fake, capsys):
    given = ["--sampler", "grid", "--shares", "0.5,1", "--draws", "2"]
    assert main(flags(fake, *given)) == 0
    shares = results(fake)["shares"]
    assert shares["overrides"] == ["optimizer.lr=0.1"]
    assert [(one["share"], len(one["values"])) for one in shares["points"]] == [(0.5, 2), (1.0, 2)]
    assert shares["points"][0]["mean"] == pytest.approx(0.455) and shares["points"][1]["mean"] == pytest.approx(0.905)
    assert "share 0.5: 0.455" in capsys.readouterr().out
    assert main(flags(fake, "--sampler", "grid", "--shares", "0.25,0.5,1", "--draws", "3")) == 0  # more of both
    assert [(one["share"], len(one["values"])) for one in results(fake)["shares"]["points"]] == [
        (0.25, 3),
        (0.5, 3),
        (1.0, 3),
    ]
    assert (fake / "sweep" / "index.html").read_text().count("<svg") == 3


def test_ctrl_c_ends_the_runs_and_the_next_start_resumes_them(fake, monkeypatch):
    monkeypatch.setenv("STEP_S", "0.5")
    timer = threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's workers ignore the signal
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            main(flags(fake, "--sampler", "grid"))
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    steps = [json.loads(line)["step"] for line in (fake / "sweep/trials/0000/metrics.jsonl").read_text().splitlines()]
    assert 0 < max(steps) < 40
    monkeypatch.setenv("STEP_S", "0")
    assert main(flags(fake, "--sampler", "grid")) == 0
    assert {one["run"] for one in results(fake)["trials"]} == {"0000", "0001", "0002", "0003"}
    assert results(fake)["best"]["run"] == "0000"


def test_a_sweep_whose_first_trials_all_fail_ends_with_their_error(fake, capsys):
    (fake / "space.toml").write_text("optimizer.lr = {low = 0.3, high = 0.3000001}\n")
    with pytest.raises(UserError, match=r"first 2 trials failed.*\n.*optimizer\.lr is a bad one"):
        main(flags(fake, "--trials", "2"))
    assert [one["state"] for one in results(fake)["trials"]] == ["failed"] * 2
    (fake / "run.py").write_text(RUN.replace("lr == 0.3", "False"))
    assert main(flags(fake, "--trials", "2", "--retry_failed")) == 0
    assert [one["state"] for one in results(fake)["trials"]] == ["complete"] * 2


@pytest.mark.parametrize(
    ("metric", "maximize"),
    [("val/t2v_R@1", True), ("val/loss", False), ("val/EER", False), ("val/AUC", True), ("val/minus_error", True)],
)
def test_the_better_end_of_a_metric(metric, maximize):
    args = types.SimpleNamespace(metric=metric, mode="", verb="finetune")
    assert _metric(args, config=ml_collections.ConfigDict({"train": {}})) == (metric, maximize)


def test_a_metric_that_no_evaluation_gives_is_named(fake):
    with pytest.raises(UserError, match=r"'val/scroe'; did you mean 'val/score'\? Give --metric one of: val/score"):
        main([*flags(fake, "--sampler", "grid"), "--metric", "val/scroe"])


def test_a_workdir_of_another_sweep_is_refused(fake):
    assert main(flags(fake, "--trials", "1")) == 0
    for other in (["--config.seed=3"], ["--metric", "val/loss"]):
        with pytest.raises(UserError, match="belongs to another sweep"):
            main([*flags(fake, "--trials", "1"), *other])
    (fake / "space.toml").write_text("optimizer.lr = [0.1]\n")
    with pytest.raises(UserError, match=r"space\.optimizer\.lr"):
        main(flags(fake, "--trials", "1"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workdir", "w"], "--space FILE"),
        (["--workdir", "w", "--shares", "0.5,2"], "--shares must list"),
        (["--workdir", "w", "--shares", "1", "--verb", "finetune"], "needs --init"),
        (["--workdir", "w", "--shares", "1", "--verb", "tune"], "--verb must be"),
        (["--workdir", "w", "--shares", "1", "--processes", "0"], "--processes must be at least 1"),
        (["--workdir", "w", "--shares", "1", "--mode", "best"], "--mode must be"),
        (["--workdir", "s3://b/w", "--shares", "1", "--metric", "a"], "--workdir must be a folder"),
        (
            ["--workdir", "w", "--shares", "1", "--config.evaluations={}", "--metric", "a"],
            r"config\.evaluations is empty",
        ),
        (["--workdir", "w", "--shares", "1", "--config.train.best_metric="], "give --metric"),
    ],
)
def test_mistakes_in_the_flags(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["--config", "demo", *argv])
    assert not (tmp_path / "w" / "trials").exists()


def test_gpus_are_given_out_by_slot(tmp_path, monkeypatch):
    from twinreel.sweep.runner import Work

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")

    class Study:
        folder = tmp_path

        class space:
            overrides = staticmethod(lambda values: ["a=1"])

    work = Work(verb="pretrain", flags=("--config=demo",), metric="", maximize=True, steps=1, gpus=2)
    spec = work.run(Study, run="0007", values={}, slot=1)
    assert spec.env == {"CUDA_VISIBLE_DEVICES": "6,7"}
    assert spec.line() == f"twinreel pretrain --config=demo --config.a=1 --workdir {tmp_path / '0007'}"


def test_the_command_is_that_of_the_verb_and_its_process_ends_with_the_sweep(tmp_path):
    spec = RunSpec(verb="--version", flags=(), workdir=tmp_path / "0000")
    command = spec.command(descriptor=5)
    assert command[1:4] == ["-m", "twinreel.sweep.child", "5"] and f"--stopped_status={STOPPED}" in command
    reading, writing = os.pipe()
    code = f"from twinreel.sweep.child import main; main(['{reading}', '--version'])"
    code = f"import sys; sys.path[:0] = {sys.path!r}; {code}"
    out = subprocess.run([sys.executable, "-c", code], pass_fds=(reading,), capture_output=True, text=True, check=True)
    assert out.stdout.startswith("twinreel ")
    waiting = (
        f"import sys, time; sys.path[:0] = {sys.path!r}; from twinreel.sweep.child import _follow; _follow({reading})"
    )
    with subprocess.Popen([sys.executable, "-c", waiting], pass_fds=(reading,)) as process:
        os.close(reading)
        time.sleep(0.2)
        assert process.poll() is None
        os.close(writing)  # as when the sweep is killed
        assert process.wait(timeout=30) == -signal.SIGTERM
    assert child.__doc__


def test_lines_are_read_as_they_grow_and_after_a_resume(tmp_path):
    file, seen = tmp_path / "metrics.jsonl", Evaluations(tmp_path)
    assert seen.new() == []
    line = '{"step": %d, "kind": "eval", "val/a": %s}\n'
    file.write_text(line % (10, 0.5) + '{"step": 20, "kind": "ev')
    assert seen.new() == [(10, {"val/a": 0.5})] and seen.new() == []
    file.write_text(line % (10, 0.5) + line % (20, "null") + line % (30, 0.7))
    assert seen.new() == [(20, {}), (30, {"val/a": 0.7})] and seen.last_step == 30
    file.write_text(line % (10, 0.5))  # a resumed run dropped lines
    assert seen.new() == []
    file.write_text(line % (10, 0.5) + line % (40, 0.8))
    assert seen.new() == [(40, {"val/a": 0.8})]


def test_an_error_is_found_in_a_log(tmp_path):
    log = log_of(tmp_path / "0000")
    assert last_lines(log) == ""
    log.write_text("a\nb\nerror: config.x is bad\n  remedy\n")
    assert last_lines(log) == "error: config.x is bad\n  remedy"
    log.write_text("\n".join(map(str, range(20))))
    assert last_lines(log, count=2) == "18\n19"


def test_a_stopped_run_reports_what_it_wrote_last(fake, monkeypatch):
    monkeypatch.setenv("STEP_S", "0.1")
    seen = []
    spec = RunSpec(verb="pretrain", flags=("--config=demo",), workdir=fake / "run")
    reading, writing = os.pipe()
    status, pruned = run_trial(
        spec,
        lock=reading,
        stop=threading.Event(),
        evaluated=lambda step, values: seen.append(step) or step >= 20,
        stepped=lambda step: None,
    )
    os.close(reading), os.close(writing)
    assert (status, pruned) == (STOPPED, True) and seen[:2] == [10, 20]


@pytest.mark.slow
def test_real_runs_of_fine_tuning(tmp_path):
    from colour_clips import SHORT, prepare_and_pretrain

    import twinreel

    root = prepare_and_pretrain(tmp_path)
    (root / "space.toml").write_text('"optimizer.lr" = [0.0, 1e-2]\n')
    given = ["--config", "demo_classify:linear", "--init", str(root / "pretrained"), "--data", str(root / "data")]
    given += ["--space", str(root / "space.toml"), "--workdir", str(root / "sweep"), "--sampler", "grid", *SHORT]
    assert main(["--verb", "finetune", *given]) == 0
    found = results(root)
    assert found["metric"] == "val/accuracy" and found["best"]["values"] == {"optimizer.lr": 0.01}
    assert [step for step, _ in found["best"]["curve"]] == [10, 20, 30, 40]
    assert twinreel.load(found["best"]["workdir"]).labels == ("blue", "green", "red")
    assert (Path(found["best"]["workdir"]) / "report" / "index.html").is_file()
