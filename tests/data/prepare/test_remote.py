"""prepare from and to an object store (a real S3 server on the loopback interface)."""

import io
import json
import signal
import subprocess
import sys
import time

import fsspec
import pytest
from object_store import upload
from rich.console import Console

from twinreel.base.errors import UserError
from twinreel.data import remote
from twinreel.data.prepare import sending
from twinreel.data.prepare.prepare import prepare


@pytest.fixture(scope="module")
def clips(tmp_path_factory, media):
    """Six videos and their manifest, local."""
    root = tmp_path_factory.mktemp("clips")
    rows = []
    for n in range(6):
        media.write(root / "v" / f"{n}.mp4", media.grey(*range(10 + n, 170 + n, 20)), sound=media.tone(1.0))
        split = "test" if n == 5 else "train"
        rows.append({"clip_id": f"c{n}", "path": f"v/{n}.mp4", "captions": [f"grey {n}"], "split": split})
    (root / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "m.csv").write_text("path,caption,split\n" + "".join(f"v/{n}.mp4,grey {n},train\n" for n in range(6)))
    return root


def run(source, out, **options):
    printed = io.StringIO()
    settings = {"fps": 4, "short_side": 24, "workers": 2, "console": Console(file=printed, width=300)}
    return prepare(source, out=out, **settings | options), printed.getvalue()


def contents(folder):
    """The files of a local folder or URL by name, without those that tell what the input files were."""
    left_out = ("prepare.json", "inputs.jsonl")
    if isinstance(folder, str):
        system, path = fsspec.core.url_to_fs(folder)
        names = remote.walk(folder)
        return {name: system.cat_file(f"{path}/{name}") for name in names if name not in left_out}
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in left_out)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_videos_and_lists_on_s3_give_the_same_records(clips, tmp_path, s3):
    upload(clips, s3)
    here, _ = run(clips / "m.jsonl", tmp_path / "a")
    there, _ = run(f"{s3}/m.jsonl", tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert here.pop("source_sha256") != there.pop("source_sha256") and here == there  # of bytes, and of entity tags
    run(clips / "m.csv", tmp_path / "c")
    run(f"{s3}/m.csv", tmp_path / "d")
    assert contents(tmp_path / "c") == contents(tmp_path / "d")
    _, printed = run(f"{s3}/m.jsonl", tmp_path / "b")
    assert "is prepared already" in printed


def test_missing_video_and_windows_of_one_remote_file(clips, tmp_path, s3):
    upload(clips, s3)
    rows = [
        {
            "clip_id": f"w{n}",
            "path": "v/0.mp4",
            "start_s": n / 4,
            "end_s": n / 4 + 0.5,
            "captions": ["x"],
            "split": "train",
        }
        for n in range(3)
    ]
    rows.append({"clip_id": "gone", "path": "v/99.mp4", "captions": ["x"], "split": "train"})
    text = "\n".join(map(json.dumps, rows))
    (clips / "w.jsonl").write_text(text)
    with fsspec.open(f"{s3}/w.jsonl", "w") as file:
        file.write(text)
    run(clips / "w.jsonl", tmp_path / "a", max_bad_fraction=0.5)
    there, _ = run(f"{s3}/w.jsonl", tmp_path / "b", max_bad_fraction=0.5)
    assert there["rejected"] == {"file does not exist": 1}
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a.pop("rejects.jsonl") and b.pop("rejects.jsonl") and a == b


def test_faults_of_remote_sources(tmp_path, s3):
    with pytest.raises(UserError, match=r"manifest 's3://bucket/.*/no\.jsonl' does not exist"):
        run(f"{s3}/no.jsonl", tmp_path / "a")
    with pytest.raises(UserError, match="unknown scheme 'nope'"):
        run("nope://x/m.jsonl", tmp_path / "a")
    with fsspec.open(f"{s3}/m.jsonl", "w") as file:
        file.write('{"clip_id": "a", "path": "/etc/passwd", "captions": ["x"]}')
    with pytest.raises(UserError, match=r"path '/etc/passwd' leaves the folder"):
        run(f"{s3}/m.jsonl", tmp_path / "a")


def test_out_on_s3_equals_a_local_one(clips, tmp_path, s3):
    here, _ = run(clips / "m.jsonl", tmp_path / "a")
    there, _ = run(clips / "m.jsonl", f"{s3}/out")
    assert here == there and contents(tmp_path / "a") == contents(f"{s3}/out")
    with fsspec.open(f"{s3}/out/prepare.json") as file:
        assert json.load(file) == here
    assert not list((tmp_path / "cache" / "twinreel" / "staging").rglob("*.array_record*"))
    _, printed = run(clips / "m.jsonl", f"{s3}/out")
    assert f"{s3}/out is prepared already" in printed


def test_a_run_that_is_killed_behind_its_last_upload_leaves_nothing_here(clips, tmp_path, s3, monkeypatch):
    staging = tmp_path / "cache" / "twinreel" / "staging"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sending, "remove_build", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        run(clips / "m.jsonl", f"{s3}/out")
    assert list(staging.rglob("prepare.json"))
    run(clips / "m.jsonl", f"{s3}/out")
    assert not [path for path in staging.rglob("*") if path.is_file()]


def test_other_options_need_overwrite_and_leave_nothing_of_the_old(clips, s3):
    run(clips / "m.jsonl", f"{s3}/out")
    with pytest.raises(UserError, match=r"was prepared with other options(.|\n)*fps"):
        run(clips / "m.jsonl", f"{s3}/out", fps=2)
    run(clips / "m.jsonl", f"{s3}/out", splits=["test"], overwrite=True)
    names = remote.walk(f"{s3}/out")
    assert any("-test." in name for name in names) and not any("-train." in name for name in names)
    with fsspec.open(f"{s3}/other/thing", "w") as file:
        file.write("x")
    with pytest.raises(UserError, match=r"holds something else \(thing"):
        run(clips / "m.jsonl", f"{s3}/other")


def test_sending_that_fails_goes_on_and_shows_nothing_half(clips, s3, s3_proxy, monkeypatch):
    failing = True
    s3_proxy.fault = lambda method, path: 403 if failing and method == "PUT" and "-train." in path else None
    with pytest.raises(UserError, match="may not be read or written"):
        run(clips / "m.jsonl", f"{s3}/out")
    assert not remote.is_file(f"{s3}/out/prepare.json")
    failing = False
    already = set(remote.walk(f"{s3}/out"))
    assert already
    s3_proxy.seen.clear()
    monkeypatch.setattr("twinreel.data.prepare.prepare._build", None)  # it must not be built again
    run(clips / "m.jsonl", f"{s3}/out")
    sent = {path for method, path in s3_proxy.seen if method == "PUT"}
    assert not {path for path in sent if path.partition("/out/")[2] in already} and len(sent) >= 2
    assert remote.is_file(f"{s3}/out/prepare.json")


def test_rejects_are_sent_where_the_build_fails(clips, s3):
    (clips / "bad.jsonl").write_text('{"clip_id": "a", "path": "none.mp4", "captions": ["x"], "split": "train"}')
    with pytest.raises(UserError, match="cannot be used"):
        run(clips / "bad.jsonl", f"{s3}/out")
    assert list(remote.walk(f"{s3}/out")) == ["rejects.jsonl"]


def test_no_permission_is_told_before_anything_is_decoded(clips, s3, s3_proxy, monkeypatch):
    monkeypatch.setattr("twinreel.data.prepare.prepare._build", None)
    s3_proxy.fault = lambda method, path: 403
    with pytest.raises(UserError, match="may not be read or written"):
        run(clips / "m.jsonl", f"{s3}/out")


@pytest.mark.slow
def test_killed_while_sending(clips, s3, s3_proxy, tmp_path):
    """kill -9 in the middle of the transfer; the same command again ends as if nothing had happened."""
    run(clips / "m.jsonl", tmp_path / "a")
    command = [sys.executable, "-m", "twinreel", "prepare", str(clips / "m.jsonl"), "--out", f"{s3}/out"]
    command += ["--fps", "4", "--short_side", "24", "--workers", "1"]
    s3_proxy.fault = lambda method, path: time.sleep(1.0) if method == "PUT" else None
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not any(method == "PUT" for method, _ in s3_proxy.seen):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    s3_proxy.fault = lambda method, path: None
    assert not remote.is_file(f"{s3}/out/prepare.json")
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert contents(f"{s3}/out") == contents(tmp_path / "a")
