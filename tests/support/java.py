"""A command that stands in for Java and speaks the protocol of meteor-1.5.jar."""

import sys
from pathlib import Path

STAND_IN = """\
import sys
if sys.argv[1:] == ["-version"]:
    sys.exit(print('stand-in version "17"', file=sys.stderr))
assert sys.argv[1:3] == ["-jar", "-Xmx2G"] and sys.argv[4:] == "- - -stdio -l en -norm".split(), sys.argv
for line in sys.stdin:
    what, *fields = line.rstrip("\\n").split(" ||| ")
    if what == "SCORE":  # words of the candidate in the best reference, and its words
        own = fields[-1].split()
        print(max(sum(word in one.split() for word in own) for one in fields[:-1]), len(own), flush=True)
    else:
        counts = [list(map(int, one.split())) for one in fields]
        for right, all in [*counts, map(sum, zip(*counts))]:
            print(right / all, flush=True)
"""


def stand_in_java(folder: Path, *, program: str = STAND_IN) -> dict:
    """Write the command and a jar; returns the arguments of `Meteor`."""
    (folder / "meteor.jar").write_bytes(b"jar")
    (folder / "program.py").write_text(program)
    command = folder / "java"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {folder / "program.py"} "$@"\n')
    command.chmod(0o755)
    return {"jar": folder / "meteor.jar", "java": str(command)}
