"""The container: what deploy/ says fits to the server, the parser and the project; it was not built here."""

import fnmatch
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from twinreel.serve.web import command
from twinreel.serve.web.guard import HEALTH

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def dockerfile():
    """[(instruction, rest)] with continued lines joined."""
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def search():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["search"]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def one(dockerfile, name):
    (rest,) = [rest for instruction, rest in dockerfile if instruction == name]
    return rest


def test_python_is_one_that_the_project_supports(dockerfile, project):
    images = [rest.split()[0] for name, rest in dockerfile if name == "FROM"]
    versions = {re.fullmatch(r"python:(\d+)\.(\d+)-slim", image).groups() for image in images}
    assert len(versions) == 1
    least = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"]).groups()
    assert tuple(map(int, least)) <= tuple(map(int, versions.pop())) <= (3, 12)  # 3.11 and 3.12 are tested


def test_the_extra_and_the_files_exist(dockerfile, project):
    install = next(rest for name, rest in dockerfile if name == "RUN" and "pip install" in rest)
    (extra,) = re.findall(r"\[(\w+)\]", install)
    assert extra in project["optional-dependencies"]
    assert (ROOT / "constraints.txt").is_file() and "COPY" in {name for name, _ in dockerfile}
    left_out = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    (folders,) = re.findall(r"FOLDERS = \[(.*?)\]", (ROOT / "setup.py").read_text(), re.S)
    needed = {
        *re.findall(r'"(\w+)"', folders),
        project["readme"],
        *project["license-files"],
        "pyproject.toml",
        "setup.py",
    }
    assert len(needed) > 20 and not [name for name in needed for one in left_out if fnmatch.fnmatch(name, one)]
    assert {"tests", "docs"} <= set(left_out) and fnmatch.fnmatch(".git", left_out[0])


def test_the_server_is_started_with_flags_that_it_has(dockerfile, search):
    entry, default = (json.loads(one(dockerfile, name)) for name in ("ENTRYPOINT", "CMD"))
    assert entry[:2] == ["twinreel", "serve"]
    for given in (default, search["command"]):
        args, _ = command.make_parser().parse([*entry[2:], *given])
        assert (args.index, args.host, args.port, args.model_path) == ("/index", "0.0.0.0", 8000, "/model")
    assert one(dockerfile, "EXPOSE") == str(args.port) and search["ports"] == [f"127.0.0.1:{args.port}:{args.port}"]
    assert {"index", "model"} <= {volume["target"].strip("/") for volume in search["volumes"]}
    assert (ROOT / search["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert (DEPLOY / search["build"]["context"]).samefile(ROOT)


def test_it_runs_without_rights_and_asks_for_a_token(dockerfile, search):
    user, group = one(dockerfile, "USER").split(":")
    assert int(user) >= 1000 and int(group) >= 1000
    assert search["read_only"] and search["cap_drop"] == ["ALL"] and all(one["read_only"] for one in search["volumes"])
    assert list(search["environment"]) == [command.TOKEN]
    assert search["environment"][command.TOKEN].startswith(f"${{{command.TOKEN}:?")  # no default
    written = (DEPLOY / "Dockerfile").read_text()
    assert not re.search(rf"^(ENV|ARG).*{command.TOKEN}", written, re.M)  # it is not part of the image
    for name in re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()):
        assert f"{name}=" in (DEPLOY / "compose.yaml").read_text().split("services:")[0]


def test_health_is_asked_where_it_is_answered(dockerfile, service):
    check = one(dockerfile, "HEALTHCHECK")
    program = json.loads(check.partition("CMD")[2])
    assert program[:2] == ["python", "-c"] and shlex.split(check.partition("CMD")[0])
    (path,) = re.findall(r"http://127\.0\.0\.1:8000(/\w+)", program[2])
    assert path in HEALTH
