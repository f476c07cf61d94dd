"""`make test-interop`: Weights & Biases (offline) and MLflow (in a folder) take the metrics of a run and of its resume.

TWINREEL_SINKS names a folder with both packages (`pip install --target`).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
FOLDER = os.environ.get("TWINREEL_SINKS")

RUN = """
import sys
from pathlib import Path
from engine_toy import ToyObjective, batches, config
from twinreel.engine.loop.evaluation import Evaluation
from twinreel.engine.loop.train import train
workdir = Path(sys.argv[1])
for steps in (4, 6):
    train(
        objective=ToyObjective(), batches=batches, workdir=workdir, meta={},
        config=config(train__steps=steps, train__sinks=("wandb", "mlflow")),
        evaluations=[Evaluation(name="val", every=2, run=lambda model, step: {"t2v_R@1": 10.0 * step})],
    )
"""

MLFLOW = """
import json
from mlflow import MlflowClient
client = MlflowClient()
[run] = client.search_runs([client.get_experiment_by_name("twinreel").experiment_id])
keys = sorted(run.data.metrics)
found = {key: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, key)] for key in keys}
print(json.dumps([run.info.status, run.info.run_name, found]))
"""

WANDB = """
import json, struct, sys
from pathlib import Path
from wandb.proto import wandb_internal_pb2

def records(content):
    # LevelDB's log: after a header of 7 bytes, blocks of 32,768 with parts (checksum, length, type 1 whole to 4 last).
    place, whole = 7, b""
    while place + 7 <= len(content):
        if 32_768 - place % 32_768 < 7:
            place += 32_768 - place % 32_768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole, place = whole + content[place + 7 : place + 7 + length], place + 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""

for path in sys.argv[1:]:
    lines = []
    for data in records(Path(path).read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            lines.append({"id": record.run.run_id, "name": record.run.display_name})
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            lines.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    print(json.dumps(lines))
"""


@pytest.mark.skipif(not FOLDER, reason="TWINREEL_SINKS is not set")
def test_a_run_and_its_resume_are_one_run_of_each_service(tmp_path):
    workdir = tmp_path / "mine"
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(FOLDER), os.environ.get("PYTHONPATH", "")]),
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }

    def python(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "lacks metrics" not in done.stderr and "takes no metrics" not in done.stderr, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]

    python(RUN, workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [[line["step"], line["loss"]] for line in lines if line["kind"] == "train"]
    recalls = [[line["step"], line["val/t2v_R@1"]] for line in lines if line["kind"] == "eval"]
    assert [step for step, _ in losses] == [2, 4, 6] and [step for step, _ in recalls] == [2, 4, 6]

    [(status, name, found)] = python(MLFLOW)
    assert (status, name) == ("FINISHED", "mine")
    assert found["train/loss"] == losses and found["eval/val/t2v_R_at_1"] == recalls

    files = sorted(workdir.rglob("*.wandb"), key=lambda path: path.stat().st_mtime)
    records = [line for one in python(WANDB, *files) for line in one]
    ids = {line["id"] for line in records if "id" in line}
    assert ids == {json.loads((workdir / "sinks.json").read_text())["wandb"]} and len(files) == 2
    assert [[line["step"], line["train/loss"]] for line in records if "train/loss" in line] == losses
    points = [[line["step"], line["eval/val/t2v_R@1"]] for line in records if "eval/val/t2v_R@1" in line]
    assert points == recalls
