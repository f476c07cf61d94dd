"""Whatever bytes an annotation file holds, a parser gives clips or a UserError, and nothing else."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinreel.base.errors import UserError
from twinreel.data.manifest import to_json
from twinreel.data.sources.registry import SOURCES

NAMES = sorted(name for name, source in SOURCES.items() if source.videos and name not in ("kinetics600", "kinetics700"))
QUIET = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ODD = st.sampled_from(
    [
        *(b"", b"\x00", b"\xff", b"\n", b'"', b"nan", b"-1", b"1e999", b"9" * 400, b"9" * 5000, b"null", b" "),
        *(b'"\\ud800"', b"[]", b"{}", b",", b"\t", b"\r", b"##", b";", b"[" * 2000, b"\xe2\x80\xa8"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def check(source, folder):
    """Read; the clips, if any, must be such as a manifest can hold."""
    for options in [{}, *({o.name: choice} for o in source.options for choice in o.choices[1:])]:
        try:
            found = source.read(folder, **source.settings(options))
        except UserError as error:
            assert str(folder) in str(error)  # names the file
        else:
            for clip in found.clips:
                json.dumps(to_json(clip), allow_nan=False, ensure_ascii=False).encode()
                for form in (clip, *source.alternatives(clip)):
                    assert form.path
            found.deviations()


@pytest.fixture
def folder(annotations):
    return annotations


@pytest.mark.parametrize("name", NAMES)
@QUIET
@given(data=st.data())
def test_bytes_replaced(folder, benchmark_files, name, data):
    files = benchmark_files[name]
    file = data.draw(st.sampled_from(sorted(files)))
    text = files[file] if isinstance(files[file], bytes) else files[file].encode()
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(len(text), begin + 12)))
    check(SOURCES[name], folder(name, {file: text[:begin] + data.draw(ODD | st.binary(max_size=8)) + text[end:]}))


@pytest.mark.parametrize("name", NAMES)
@QUIET
@given(content=st.binary(max_size=200))
def test_any_bytes(folder, benchmark_files, name, content):
    check(SOURCES[name], folder(name, dict.fromkeys(benchmark_files[name], content)))


def places(value, here=()):
    """The paths of all values inside a JSON value."""
    yield here
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield from places(inner, (*here, key))


@pytest.mark.parametrize("name", [name for name in NAMES if SOURCES[name].layout.count(".json")])
@QUIET
@given(data=st.data())
def test_json_values_replaced(folder, benchmark_files, name, data):
    files = {file: text for file, text in benchmark_files[name].items() if Path(file).suffix in (".json", ".jsonl")}
    file = data.draw(st.sampled_from(sorted(files)))
    value = json.loads(files[file])
    place = data.draw(st.sampled_from(list(places(value))))
    new = data.draw(VALUES)
    if not place:
        value = new
    else:
        inner = value
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = new
    check(SOURCES[name], folder(name, {file: json.dumps(value)}))
