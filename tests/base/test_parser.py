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


def verb():
    parser = Parser(verb="try", description="")
    parser.add_config(default="demo")
    parser.add_json()
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("source", nargs="?")
    return parser


@pytest.mark.parametrize(
    ("argv", "overrides", "source"),
    [
        (["--config.train.steps=5"], ["--config.train.steps=5"], None),
        (["--config.train.steps", "5"], ["--config.train.steps=5"], None),
        (["--config.a", "-1", "x", "--config.b", ""], ["--config.a=-1", "--config.b="], "x"),
        (["x", "--config.a.b=--c", "--json"], ["--config.a.b=--c"], "x"),
        (["--config.a=1", "--config.a", "2"], ["--config.a=1", "--config.a=2"], None),
        (["--config.a", "b=c"], ["--config.a=b=c"], None),
        (["--config.a=1", "--", "--config.b"], ["--config.a=1"], "--config.b"),
    ],
)
def test_an_override_has_its_value_after_an_equals_sign_or_a_blank(argv, overrides, source):
    args, found = verb().parse(argv)
    assert found == overrides and args.source == source and args.config == "demo"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config.train.steps"], r"--config\.train\.steps has no value; write --config\.train\.steps=VALUE"),
        (["--config.train.steps", "--json"], r"--config\.train\.steps has no value"),
        (["--json", "a", "plan.json"], r"unexpected argument 'plan\.json'"),
        (["a", "--json", "plan.json"], r"'plan\.json'; --json prints on standard output: write `--json > plan\.json`"),
        (["--json=plan.json"], r"--json takes no value, got 'plan\.json'; .*write `--json > plan\.json`"),
        (["a", "--fast", "yes"], r"unexpected argument 'yes'; --fast takes no value"),
        (["--steps"], "argument --steps: expected one argument"),
        (["--steps=x"], "argument --steps: invalid int value: 'x'"),
        (["--stps=3"], "unknown flag --stps; did you mean --steps"),
    ],
)
def test_a_wrong_command_line_is_explained(argv, message):
    with pytest.raises(UserError, match=message):
        verb().parse(argv)


def test_a_verb_without_a_config_takes_no_overrides():
    with pytest.raises(UserError, match=r"unknown flag --config\.a"):
        Parser(verb="try", description="").parse(["--config.a", "1"])
