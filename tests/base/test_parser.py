"""The flags that the verbs share."""

from pathlib import Path

import pytest

from twinreel.base.errors import UserError
from twinreel.base.parser import Distributed, Parser, folder


def parsed(*argv):
    parser = Parser(verb="pretrain", description="")
    parser.add_distributed()
    return Distributed.of(parser.parse(list(argv))[0])


def test_one_process_alone():
    assert parsed() is None


def test_all_said():
    found = parsed("--coordinator", "a:1", "--num_processes=4", "--process_id", "3", "--init_timeout", "9")
    assert found is not None
    assert found.to_dict() == {"coordinator": "a:1", "num_processes": 4, "process_id": 3, "init_timeout": 9.0}


def test_the_environment_says_it():
    found = parsed("--distributed")
    assert found == Distributed(coordinator=None, num_processes=None, process_id=None, init_timeout=300.0)


@pytest.mark.parametrize("flag", ["--num_processes=2", "--process_id=0"])
def test_a_count_without_a_coordinator_would_start_runs_of_one(flag):
    with pytest.raises(UserError, match=rf"{flag.split('=')[0]} needs --coordinator"):
        parsed(flag)


def test_a_url_is_no_folder():
    assert folder("runs/a", flag="--workdir") == Path("runs/a")
    with pytest.raises(UserError, match=r"--workdir must be a folder .*'gs://b/run'.*--claim"):
        folder("gs://b/run", flag="--workdir")
