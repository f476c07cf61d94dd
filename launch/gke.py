"""Several processes on Google Kubernetes Engine: a JobSet with one pod per TPU host, queued by Kueue."""

import argparse
import json
import re
import shutil
import subprocess
from typing import Any

import yaml

from ..base.errors import UserError
from .job import Job
from .topologies import Slice, tpu_slice

_GROUP = "workers"
_EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
# A pod that saves on SIGTERM and exits with 0 would count as completed.
_STOPPED = 75
# Show folders that other programs wrote, and allow renames: a checkpoint gets its name when it is complete.
_BUCKET_OPTIONS = "implicit-dirs,rename-dir-limit=100000"
_QUEUE = "kueue.x-k8s.io/queue-name"


def add_flags(group: Any) -> None:
    """Add the flags of this backend to an argparse group."""
    group.add_argument("--tpu", required=True, help="TPU version: v4, v5e, v5p, v6e or tpu7x")
    group.add_argument("--topology", required=True, help="chips of a slice: 16x16 (v5e, v6e), 4x4x8 (v4, v5p, tpu7x)")
    group.add_argument("--slices", type=int, default=1, help="number of slices; config.mesh.replica spans them")
    group.add_argument("--image", required=True, help="container image with twinreel and jax[tpu]")
    group.add_argument("--queue", default="", help="Kueue LocalQueue; by default the JobSet starts at once")
    group.add_argument("--make_queue", action="store_true", help="also create a queue for these slices")
    group.add_argument("--name", default="", help="name of the JobSet; by default made of verb and config")
    group.add_argument("--namespace", default="default", help="Kubernetes namespace")
    group.add_argument("--service_account", default="", help="Kubernetes service account, for access to buckets")
    group.add_argument("--claim", action="append", default=[], metavar="CLAIM=/PATH", help="volume claim to mount")
    group.add_argument("--bucket", action="append", default=[], metavar="BUCKET=/PATH", help="bucket to mount")
    group.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="an environment variable")
    group.add_argument("--priority", default="", help="PriorityClass of the pods")
    group.add_argument("--max_restarts", type=int, default=10, help="number of restarts after a failure")
    group.add_argument("--save_seconds", type=int, default=300, help="seconds from SIGTERM to SIGKILL")
    group.add_argument("--python", default="python3", help="the Python of the image")


def launch(job: Job, *, args: argparse.Namespace) -> int:
    """Pass the manifests to `kubectl apply`.

    Raises:
      UserError: no such slice, a name that Kubernetes rejects, or no kubectl on this machine.
    """
    text = yaml.safe_dump_all(manifests(job, args=args), sort_keys=False, width=1000)
    command = ["kubectl", "apply", "-f", "-"]
    if args.dry_run:
        content = {"manifests": manifests(job, args=args), "command": command}
        print(json.dumps(content) if args.json else f"{text}# {' '.join(command)}")
        return 0
    if shutil.which("kubectl") is None:
        raise UserError("kubectl is not installed here; --dry_run prints the manifests")
    return subprocess.run(command, input=text, text=True, check=False).returncode


def manifests(job: Job, *, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the Kubernetes objects: those of the queue (with --make_queue), then the JobSet.

    A JobSet (jobset.x-k8s.io/v1alpha2) has one Job per slice with one pod per host. It creates the headless service by
    which pods find each other, and restarts all pods if one fails; the run resumes from its last checkpoint.
    """
    slice_ = tpu_slice(tpu=args.tpu, topology=args.topology)
    if args.slices < 1:
        raise UserError(f"--slices must be at least 1, got {args.slices}")
    name = args.name or job.name
    # GKE and JobSet append to it: <name>-workers-<slice>-<host>-<five letters>, at most 63 letters.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name):
        raise UserError(f"--name must be lower-case letters, digits and '-', at most 40, got {name!r}")
    if args.make_queue and not args.queue:
        raise UserError("--make_queue needs the name of the queue in --queue")
    queue = _queue(slice_, args=args) if args.make_queue else []
    return [*queue, _jobset(job, name=name, slice_=slice_, args=args)]


def _jobset(job: Job, *, name: str, slice_: Slice, args: argparse.Namespace) -> dict[str, Any]:
    labels = {_QUEUE: args.queue} if args.queue else {}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "namespace": args.namespace,
            "labels": labels,
            # One slice per Job and one Job per slice: GKE gives each slice a node pool of its own.
            "annotations": {_EXCLUSIVE: "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "ttlSecondsAfterFinished": 7 * 24 * 3600,
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": args.max_restarts},
            "replicatedJobs": [
                {
                    "name": _GROUP,
                    "replicas": args.slices,
                    "template": {
                        "spec": {
                            "parallelism": slice_.hosts,
                            "completions": slice_.hosts,
                            "completionMode": "Indexed",
                            "backoffLimit": 0,  # a lost pod stops all, and the JobSet restarts them together
                            "template": _pod(job, slice_=slice_, args=args),
                        }
                    },
                }
            ],
        },
    }


def _pod(job: Job, *, slice_: Slice, args: argparse.Namespace) -> dict[str, Any]:
    mounts, volumes = _volumes(args)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": args.save_seconds,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": slice_.accelerator,
            "cloud.google.com/gke-tpu-topology": slice_.topology,
        },
        "tolerations": [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [
            {
                "name": "twinreel",
                "image": args.image,
                # jax reads the variables that GKE and JobSet set: TPU_WORKER_ID, TPU_WORKER_HOSTNAMES, MEGASCALE_*.
                "command": job.command(python=args.python, join=["--distributed", f"--stopped_status={_STOPPED}"]),
                "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}, *_environment(args)],
                "ports": [
                    {"containerPort": port, "protocol": "TCP"} for port in (8471, 8482, 8080)
                ],  # TPU runtime, jax (and its coordinator check), multislice
                "resources": {"limits": {"google.com/tpu": slice_.chips_per_host}},
                "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}, *mounts],
            }
        ],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}, *volumes],
    }
    if args.service_account:
        spec["serviceAccountName"] = args.service_account
    if args.priority:
        spec["priorityClassName"] = args.priority
    annotations = {"gke-gcsfuse/volumes": "true"} if args.bucket else {}
    return {"metadata": {"annotations": annotations}, "spec": spec}


def _environment(args: argparse.Namespace) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in (_pair(text, flag="--env") for text in args.env)]


def _volumes(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (mounts of the container, volumes of the pod)."""
    mounts, volumes = [], []
    for flag, texts in (("--claim", args.claim), ("--bucket", args.bucket)):
        for i, text in enumerate(texts):
            source, path = _pair(text, flag=flag)
            if not path.startswith("/"):
                raise UserError(f"{flag} must be NAME=/PATH with an absolute path, got {text!r}")
            name = f"{flag.strip('-')}-{i}"
            mounts.append({"name": name, "mountPath": path})
            if flag == "--claim":
                volumes.append({"name": name, "persistentVolumeClaim": {"claimName": source}})
            else:
                attributes = {"bucketName": source, "mountOptions": _BUCKET_OPTIONS}
                driver = {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}
                volumes.append({"name": name, "csi": driver})
    return mounts, volumes


def _queue(slice_: Slice, *, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return Kueue's objects for a queue that holds exactly these slices: flavor, cluster queue, local queue."""
    flavor = f"{slice_.accelerator}-{slice_.topology}"
    labels = {
        "cloud.google.com/gke-tpu-accelerator": slice_.accelerator,
        "cloud.google.com/gke-tpu-topology": slice_.topology,
    }
    quota = {"name": "google.com/tpu", "nominalQuota": slice_.chips * args.slices}
    group = {"coveredResources": ["google.com/tpu"], "flavors": [{"name": flavor, "resources": [quota]}]}
    cluster = f"{args.queue}-cluster"
    version = "kueue.x-k8s.io/v1beta1"
    return [
        {"apiVersion": version, "kind": "ResourceFlavor", "metadata": {"name": flavor}, "spec": {"nodeLabels": labels}},
        {
            "apiVersion": version,
            "kind": "ClusterQueue",
            "metadata": {"name": cluster},
            "spec": {"namespaceSelector": {}, "queueingStrategy": "BestEffortFIFO", "resourceGroups": [group]},
        },
        {
            "apiVersion": version,
            "kind": "LocalQueue",
            "metadata": {"name": args.queue, "namespace": args.namespace},
            "spec": {"clusterQueue": cluster},
        },
    ]


def _pair(text: str, *, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"{flag} must be NAME=VALUE, got {text!r}")
    return name, value
