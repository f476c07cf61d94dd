"""Shards made through Beam's Job API, as on Flink and Spark: job service and workers are processes of their own."""

import io
import json
import os
import subprocess
import sys

import fsspec
import pytest
from rich.console import Console

from twinreel.data import remote
from twinreel.data.prepare.command import split_options
from twinreel.data.prepare.maker import ShardMaker
from twinreel.data.prepare.prepare import prepare

pytest.importorskip("apache_beam")

SETTINGS = {"fps": 4, "short_side": 24, "workers": 1, "shard_clips": 2}
# Beam's own job service, which writes down the options of each job that it gets.
SERVE = """
import json, sys
from google.protobuf import json_format
from apache_beam.runners.portability.local_job_service import LocalJobServicer

class Servicer(LocalJobServicer):
    def create_beam_job(self, preparation_id, job_name, pipeline, options):
        with open(sys.argv[1], "w") as file:
            json.dump(json_format.MessageToDict(options), file)
        return super().create_beam_job(preparation_id, job_name, pipeline, options)

servicer = Servicer()
print(servicer.start_grpc_server(0), flush=True)
sys.stdin.read()
"""
# Starts a worker process for each that the service asks for, as on the machines of a cluster.
POOL = """
import sys
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

address, server = BeamFnExternalWorkerPoolServicer.start(use_process=True)
print(address, flush=True)
sys.stdin.read()
server.stop(1)
"""


def start(script, *arguments):
    """Start a process; return it and the line that it prints when it is ready."""
    command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    return process, process.stdout.readline().strip()


def stop(process):
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()


def contents(url):
    system, path = fsspec.core.url_to_fs(url)
    return {name: system.cat_file(f"{path}/{name}") for name in remote.walk(url) if name != "inputs.jsonl"}


def run(source, out, **settings):
    return prepare(source, out=out, console=Console(file=io.StringIO()), **SETTINGS | settings)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ("a=1, --b=two,c,", ["a=1", "--b=two", "c"]),
        ("spark_master_url=local-cluster[2,1,1024],x=1", ["spark_master_url=local-cluster[2,1,1024]", "x=1"]),
        (
            'environment_config={"command": "a[", "env": {"B": "1,2"}},c',
            ['environment_config={"command": "a[", "env": {"B": "1,2"}}', "c"],
        ),
        ("", []),
    ],
)
def test_commas_of_values_do_not_divide_options(given, options):
    assert split_options(given) == options


@pytest.mark.slow
def test_options_reach_the_service_and_workers_send_the_same_bytes(s3, media, monkeypatch, tmp_path):
    media.write(tmp_path / "a.mp4", media.grey(*range(20, 180, 20)))
    rows = [
        {"clip_id": f"c{n}", "path": "a.mp4", "captions": [f"{n}"], "split": "train", "start_s": n / 8}
        for n in range(4)
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(tmp_path / "m.jsonl", f"{s3}/here")
    service, port = start(SERVE, str(tmp_path / "job.json"))
    pool, workers = start(POOL)
    options = [f"job_endpoint=localhost:{port}", "job_name=twinreel", "environment_type=EXTERNAL"]
    options += [f"environment_config={workers}", "sdk_worker_parallelism=2", "--experiments=some", "region=here"]
    monkeypatch.setattr(ShardMaker, "make", None)  # in this process
    try:
        run(tmp_path / "m.jsonl", f"{s3}/there", beam_runner="PortableRunner", beam_options=options)
    finally:
        stop(service)
        stop(pool)
    assert contents(f"{s3}/there") == contents(f"{s3}/here")
    found = {key.split(":")[2]: value for key, value in json.loads((tmp_path / "job.json").read_text()).items()}
    assert (found["job_name"], found["region"], found["sdk_worker_parallelism"]) == ("twinreel", "here", "2")
    assert "some" in found["experiments"] and found["environment_config"] == workers
