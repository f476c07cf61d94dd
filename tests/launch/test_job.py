"""The job after --, the files and commands of each backend, and their validity by the schemas of the clusters."""

import json
import shlex
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from jax._src.clusters import cloud_tpu_cluster
from kubeflow_trainer_api import models

import twinreel
from twinreel import __main__ as cli
from twinreel.base.errors import UserError
from twinreel.launch.job import DISTRIBUTED_VERBS, Job, split
from twinreel.launch.topologies import tpu_slice

PRETRAIN = ["--", "pretrain", "--config", "small_26m", "--workdir", "/data/my run", "--config.train.steps=7"]
GKE = ["--backend", "gke", "--tpu", "v5e", "--topology", "16x16", "--image", "example.org/twinreel:1", "--dry_run"]


def launch(*argv, capsys, status=0):
    assert cli.main(["launch", *argv]) == status
    streams = capsys.readouterr()
    return streams.out if status == 0 else streams.err


def test_the_verbs_that_can_be_launched_are_those_that_take_the_flags(capsys):
    takes = []
    for verb in cli.VERBS:
        with pytest.raises(SystemExit):
            cli.main([*verb.split(), "--help"])
        if "--process_id" in capsys.readouterr().out:
            takes.append(verb)
    assert tuple(takes) == DISTRIBUTED_VERBS


@pytest.mark.parametrize(
    ("rest", "wanted"),
    [
        (
            ["prepare", "clips"],
            "`twinreel prepare` runs in one process; launch starts pretrain, evaluate, probe, finetune",
        ),
        (["bench", "step"], "`twinreel bench` runs in one process"),
        (["generate", "sample"], "`twinreel generate` runs in one process; launch starts .* and generate train"),
        (["--config", "demo"], "verb after --"),
        (["pretrain", "--process_id", "1"], "`launch` sets --process_id for each process"),
        (
            ["pretrain", "--workdir=https://b/run"],
            "--workdir must be a folder, or an s3:// or gs:// URL, got 'https://b/run'",
        ),
        (["pretrain", "--coordinator=a:1"], "`launch` sets --coordinator for each process"),
        ([], "no verb after --"),
    ],
)
def test_what_cannot_be_launched_is_refused_by_name(rest, wanted):
    with pytest.raises(UserError, match=wanted.replace("(", r"\(")):
        split(["--backend", "local", "--", *rest])


def test_a_missing_verb_and_a_wrong_backend(capsys):
    assert "no verb to launch" in launch("--backend", "local", "--num_processes", "2", capsys=capsys, status=2)
    assert "did you mean 'slurm'" in launch("--backend", "slrum", *PRETRAIN, capsys=capsys, status=2)
    assert "did you mean --nodes" in launch("--backend", "slurm", "--node", "2", *PRETRAIN, capsys=capsys, status=2)


def test_logs_of_a_run_in_an_object_store_lie_here():
    assert Job(verb="pretrain", flags=("--workdir", "s3://bucket/run")).logs.as_posix() == "runs/launch/logs"
    assert Job(verb="pretrain", flags=("--workdir=runs/a",)).logs.as_posix() == "runs/a/logs"


def test_a_verb_of_two_words():
    own, job = split(["--backend", "local", "--", "generate", "train", "--workdir", "a"])
    assert own == ["--backend", "local"] and job == Job(verb="generate train", flags=("--workdir", "a"))
    assert job.command(python="p", join=["-j"]) == ["p", "-m", "twinreel", "generate", "train", "--workdir", "a", "-j"]
    assert job.name == "generate-train"


def test_flags_and_name_of_a_job():
    job = Job(verb="pretrain", flags=("--config=my/Big_Model.py:x", "--workdir", "a b"))
    assert job.value("--config") == "my/Big_Model.py:x" and job.value("--workdir") == "a b"
    assert job.value("--data") is None
    assert job.name == "pretrain-big-model-py-x"
    assert shlex.split(job.line(python="py", join=["--distributed"]))[-2:] == ["a b", "--distributed"]


def test_local_dry_run(capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8")
    flags = "--backend local --num_processes 2 --platform cpu --devices_per_process 3 --coordinator_port 7000 --dry_run"
    lines = launch(*flags.split(), *PRETRAIN, capsys=capsys).splitlines()
    for number, line in enumerate(lines):
        words = shlex.split(line)
        assert words[:3] == [
            "PYTHONUNBUFFERED=1",
            "JAX_PLATFORMS=cpu",
            "XLA_FLAGS=--xla_a=1 --xla_force_host_platform_device_count=3",
        ]
        assert words[4:7] == ["-m", "twinreel", "pretrain"]
        join = ["--coordinator=localhost:7000", "--num_processes=2", f"--process_id={number}"]
        assert words[-5:] == [*join, f">{words[-2][1:]}", "2>&1"]
        assert words[-2] == f">/data/my run/logs/process-{number}.log"
    assert len(lines) == 2


def test_local_gpus_are_divided(capsys, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    flags = [
        "--backend",
        "local",
        "--num_processes",
        "2",
        "--platform",
        "gpu",
        "--devices_per_process",
        "4",
        "--dry_run",
    ]
    lines = launch(*flags, *PRETRAIN, capsys=capsys).splitlines()
    assert ["CUDA_VISIBLE_DEVICES=0,1,2,3" in lines[0], "CUDA_VISIBLE_DEVICES=4,5,6,7" in lines[1]] == [True, True]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,4,5,6,7,8,9")
    lines = launch(*flags, *PRETRAIN, capsys=capsys).splitlines()
    assert "CUDA_VISIBLE_DEVICES=2,3,4,5" in lines[0] and "CUDA_VISIBLE_DEVICES=6,7,8,9" in lines[1]


@pytest.mark.parametrize(
    ("flags", "keys"),
    [
        ("--backend local --num_processes 2 --platform cpu", {"processes"}),
        ("--backend slurm --nodes 2", {"script", "text", "command"}),
        (" ".join(GKE), {"manifests", "command"}),
        ("--backend tpu-vm --tpu_name pod --zone z", {"commands"}),
    ],
)
def test_json_is_the_content_of_the_dry_run(flags, keys, capsys):
    flags = [flag for flag in flags.split() if flag != "--dry_run"]
    found = json.loads(launch(*flags, "--dry_run", "--json", *PRETRAIN, capsys=capsys))
    assert set(found) == keys and "small_26m" in json.dumps(found)
    assert "add --dry_run" in launch(*flags, "--json", *PRETRAIN, capsys=capsys, status=2)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("--num_processes 0", "--num_processes must be at least 1"),
        ("--num_processes 2 --platform tpu", "--platform must be cpu or gpu"),
        ("--num_processes 2 --platform gpu", "--num_processes=2 on GPUs needs --devices_per_process"),
        ("--num_processes 2 --platform cpu --devices_per_process 0", "--devices_per_process must be at least 1"),
    ],
)
def test_local_flags_are_checked(flags, wanted, capsys):
    assert wanted in launch("--backend", "local", *flags.split(), *PRETRAIN, capsys=capsys, status=2)


def test_slurm_script(capsys):
    flags = (
        "--backend slurm --nodes 4 --gpus_per_node 8 --cpus_per_task 12 --time 1-00:00:00 --partition a100 --dry_run"
    )
    flags = [*flags.split(), "--setup", "module load cuda", "--sbatch", "constraint=nvlink"]
    text = launch(*flags, *PRETRAIN, capsys=capsys)
    options = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    for option in (
        "--nodes=4",
        "--ntasks-per-node=8",
        "--cpus-per-task=12",
        "--gpus-per-node=8",
        "--time=1-00:00:00",
        "--partition=a100",
        "--signal=B:USR1@300",
        "--requeue",
        "--constraint=nvlink",
        '--output="/data/my run/logs/%j.out"',
    ):
        assert option in options
    assert text.index("module load cuda") < text.index("srun")
    assert (
        "-m twinreel pretrain --config small_26m --workdir '/data/my run' --config.train.steps=7 --distributed &"
        in text
    )
    assert text.rstrip().endswith("# sbatch --parsable '/data/my run/logs/pretrain-small-26m.sbatch'")


def test_slurm_time_is_checked(capsys):
    flags = ["--backend", "slurm", "--time", "2h", "--dry_run"]
    assert "--time must be 30, 12:00:00" in launch(*flags, *PRETRAIN, capsys=capsys, status=2)


def test_slurm_gives_each_gpu_a_process(capsys):
    """jax lets a task of SLURM see the one GPU of its number, so that the others would do nothing."""
    flags = ["--backend", "slurm", "--gpus_per_node", "8", "--dry_run"]
    said = launch(*flags, "--tasks_per_node", "1", *PRETRAIN, capsys=capsys, status=2)
    assert "--tasks_per_node=1 must be equal to --gpus_per_node=8" in said
    assert "--ntasks-per-node=8" in launch(*flags, "--tasks_per_node", "8", *PRETRAIN, capsys=capsys)


def manifests(*flags, capsys):
    return list(yaml.safe_load_all(launch(*GKE, *flags, *PRETRAIN, capsys=capsys)))


def test_jobset_is_what_the_published_schemas_allow(capsys):
    extra = ["--slices", "2", "--queue", "lq", "--claim", "data=/data", "--bucket", "b=/b", "--env", "A=b=c"]
    (jobset,) = manifests(*extra, "--service_account", "ksa", "--priority", "high", capsys=capsys)
    # The client's models are made from JobSet's published OpenAPI schema: what they do not know does not come back.
    assert models.JobsetV1alpha2JobSet.from_dict(jobset).to_dict() == jobset
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    template = jobset["spec"]["replicatedJobs"][0]["template"]
    kubernetes_validate.validate(job | template, "1.33", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job | {"spec": template["spec"] | {"paralelism": 1}}, "1.33", strict=True)


def test_jobset_has_a_pod_per_host_and_the_right_nodes(capsys):
    (jobset,) = manifests("--slices", "2", "--queue", "lq", "--env", "A=b=c", capsys=capsys)
    assert jobset["metadata"]["name"] == "pretrain-small-26m"
    assert jobset["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "lq"}
    (group,) = jobset["spec"]["replicatedJobs"]
    spec = group["template"]["spec"]
    pod = spec["template"]["spec"]
    assert (group["replicas"], spec["parallelism"], spec["completions"]) == (2, 64, 64)
    assert (spec["completionMode"], spec["backoffLimit"], pod["restartPolicy"]) == ("Indexed", 0, "Never")
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "16x16",
    }
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}
    assert {"name": "A", "value": "b=c"} in container["env"]
    assert container["command"] == ["python3", "-m", "twinreel", *PRETRAIN[1:], "--distributed", "--stopped_status=75"]
    assert int(cloud_tpu_cluster.coordinator_port) in [port["containerPort"] for port in container["ports"]]


def written(name):
    """The launch commands that a page or a config file shows, as one line each."""
    text = (Path(twinreel.__file__).parent / name).read_text().replace("\\\\\n", " ").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("twinreel launch")]


@pytest.mark.parametrize("name", ["docs/scale.md", "configs/base_1b.py", "configs/large_1b.py", "configs/so400m_1b.py"])
def test_the_commands_that_are_written_down_start(name, capsys):
    commands = [shlex.split(command) for command in written(name)]
    assert commands
    for _, _, *flags in commands:
        text = launch("--dry_run", *flags, capsys=capsys)
        if "gke" in flags:  # the workdir lies in what is mounted, not in the pod
            (jobset,) = yaml.safe_load_all(text)
            pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
            mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
            assert Path(flags[flags.index("--workdir") + 1]).parents[0].as_posix() in mounts


def test_kueue_objects_hold_the_chips_of_all_slices(capsys):
    flavor, cluster, local, _ = manifests("--slices", "3", "--queue", "lq", "--make_queue", capsys=capsys)
    assert [x["kind"] for x in (flavor, cluster, local)] == ["ResourceFlavor", "ClusterQueue", "LocalQueue"]
    (group,) = cluster["spec"]["resourceGroups"]
    assert group["flavors"] == [
        {"name": flavor["metadata"]["name"], "resources": [{"name": "google.com/tpu", "nominalQuota": 768}]}
    ]
    assert local["spec"] == {"clusterQueue": cluster["metadata"]["name"]}
    assert local["metadata"]["name"] == "lq"
    schemas = json.loads((Path(__file__).parents[1] / "golden" / "kueue_schemas.json").read_text())
    for found in (flavor, cluster, local):
        schema = {"$ref": f"#/definitions/{found['kind']}", "definitions": schemas["definitions"]}
        jsonschema.validate(found, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(local | {"spec": {"queue": "x"}}, schema)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("--name Big", "--name must be lower-case"),
        ("--claim data", "--claim must be NAME=VALUE"),
        ("--bucket data=rel", "absolute path"),
        ("--make_queue", "needs the name of the queue"),
        ("--slices 0", "--slices must be at least 1"),
    ],
)
def test_gke_flags_are_checked(flags, wanted, capsys):
    assert wanted in launch(*GKE, *flags.split(), *PRETRAIN, capsys=capsys, status=2)


# Hosts and chips of a host by Google's tables of machine types.
@pytest.mark.parametrize(
    ("tpu", "topology", "hosts", "chips"),
    [
        ("v4", "2x2x1", 1, 4),
        ("v4", "4x4x8", 32, 4),
        ("v5p", "8x8x8", 128, 4),
        ("v5e", "1x1", 1, 1),
        ("v5e", "2x4", 2, 4),
        ("v5e", "16x16", 64, 4),
        ("v6e", "8x16", 32, 4),
    ],
)
def test_hosts_of_a_slice(tpu, topology, hosts, chips):
    found = tpu_slice(tpu=tpu, topology=topology)
    assert (found.hosts, found.chips_per_host, found.chips) == (hosts, chips, hosts * chips)


@pytest.mark.parametrize(
    ("tpu", "topology"), [("v5e", "3x3"), ("v5e", "4x4x4"), ("v4", "16x16"), ("v4", "4x4x6"), ("v5p", "8x4x4")]
)
def test_no_such_slice(tpu, topology):
    with pytest.raises(UserError, match="--topology"):
        tpu_slice(tpu=tpu, topology=topology)


TPU_VM = ("--backend", "tpu-vm", "--tpu_name", "pod", "--zone", "z", "--dry_run")


def test_tpu_vm_commands(capsys):
    flags = [*TPU_VM, "--project", "p", "--dir", "my dir"]
    flags += ["--setup", ". venv/bin/activate", "--env", "A=x y"]
    (line,) = launch(*flags, *PRETRAIN, capsys=capsys).splitlines()
    *ssh, last = shlex.split(line)
    assert ssh == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=z", "--project=p", "--worker=all"]
    steps = last.removeprefix("--command=").split(" && ")
    assert steps[:2] == ["cd 'my dir'", ". venv/bin/activate"]
    assert steps[3] == "export A='x y'"
    assert shlex.split(steps[4]) == ["exec", "python3", "-m", "twinreel", *PRETRAIN[1:], "--distributed"]


def test_tpu_vm_is_queued_first_if_asked(capsys):
    flags = [*TPU_VM, "--create", "v5litepod-256", "--spot"]
    assert "go together" in launch(*flags, *PRETRAIN, capsys=capsys, status=2)
    assert "it needs --create TYPE" in launch(*TPU_VM, "--spot", *PRETRAIN, capsys=capsys, status=2)
    lines = launch(*flags, "--runtime_version", "v2", *PRETRAIN, capsys=capsys).splitlines()
    assert shlex.split(lines[0])[3:6] == ["queued-resources", "create", "pod"] and "--spot" in lines[0]
    assert json.dumps(lines).count("queued-resources describe") == 1 and len(lines) == 3


@pytest.mark.parametrize(
    ("flags", "program"),
    [
        ("slurm", "sbatch"),
        ("gke --tpu v4 --topology 2x2x1 --image i", "kubectl"),
        ("tpu-vm --tpu_name a --zone z", "gcloud"),
    ],
)
def test_a_missing_program_is_named(flags, program, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    said = launch("--backend", *flags.split(), *PRETRAIN, capsys=capsys, status=2)
    assert f"{program} is not installed here" in said
