"""METEOR by a program that speaks the protocol of meteor-1.5.jar; by the jar itself where TWINREEL_METEOR names it."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from evaluate_golden import figures
from java import STAND_IN, stand_in_java

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.meteor import Meteor


@pytest.fixture
def java(tmp_path):
    return lambda program=STAND_IN: stand_in_java(tmp_path, program=program)


def test_the_protocol_of_the_jar(java):
    made = Meteor(**java())
    assert made.about == {
        "jar": "meteor.jar",
        "sha256": hashlib.sha256(b"jar").hexdigest(),
        "java": 'stand-in version "17"',
    }
    with made as program:
        texts = {"references": [["a dog runs", "the dog"], ["a  |||  bird\n"]]}
        found = program.scores(["the dog sits", "a bird"], **texts)
        assert found == {"corpus": pytest.approx(4 / 5), "per_clip": [pytest.approx(2 / 3), 1.0]}
        with pytest.raises(UserError, match=r"'references' of clip 0 is \[\]"):
            program.scores(["a"], references=[[]])


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys\nsys.exit(1)", "-version' ends with status 1; give a Java runtime"),
        (STAND_IN.replace("print(max", "sys.exit('no memory')\n        print(max"), "status 1: no memory"),
        (STAND_IN.replace("print(max", "print('hello')\n        print(max"), "answers 'hello'; wanted numbers"),
        (STAND_IN.replace("right / all,", "1, 2,"), "answers '1 2', wanted one number"),
    ],
)
def test_a_program_that_is_not_meteor_is_an_error(java, program, message):
    with pytest.raises(UserError, match=message), Meteor(**java(program)) as running:
        running.scores(["a"], references=[["a"]])


def test_without_jar_or_java_there_is_no_figure(java, tmp_path):
    with pytest.raises(UserError, match=r"other\.jar' is no file; give meteor-1\.5\.jar"):
        Meteor(tmp_path / "other.jar")
    with pytest.raises(UserError, match=r"the command 'no-such-java' .* is not found; install a Java runtime"):
        Meteor(java()["jar"], java="no-such-java")


@pytest.mark.slow
def test_the_jar_gives_the_figures_of_pycocoevalcap():
    jar = Path(os.environ.get("TWINREEL_METEOR", "meteor-1.5.jar"))
    if not jar.is_file() or not shutil.which("java"):
        pytest.skip(f"no {jar} (TWINREEL_METEOR), or no Java")
    sets, want = figures("captions")["ptb_tokens"], figures("captions")["pycocoevalcap 1.2, PTB tokens (Java)"]
    with Meteor(jar) as program:
        references = [one["references"] for one in sets]
        found = program.scores([one["candidate"] for one in sets], references=references)
    assert found["corpus"] == pytest.approx(want["METEOR"], abs=1e-9)
    assert found["per_clip"] == pytest.approx(want["METEOR per set"], abs=1e-9)
