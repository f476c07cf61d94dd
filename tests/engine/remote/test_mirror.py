"""The small files of a stage: which of them are sent."""

from types import SimpleNamespace

from twinreel.engine.remote.mirror import Mirror


def test_workdirs_below_a_workdir_are_sent_by_their_own_runs(tmp_path):
    for name in ("metrics.jsonl", "report/index.html", "stages/a/config.json", "transfer/a+b/checkpoints/2/state"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    sent = {}
    Mirror(tmp_path, store=SimpleNamespace(url="s3://a", upload=sent.update), say=print, every_s=1e6).close()
    assert set(sent) == {"metrics.jsonl", "report/index.html"}
