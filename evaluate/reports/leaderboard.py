"""Results in the file form of a leaderboard: MMEB-V2's `video/DATASET_score.json`."""

import json
from pathlib import Path
from typing import Any

from ..protocols.scored import READ_AS

MMEB = "mmeb-v2"
_NAMES = {
    "msrvtt-1ka": "MSR-VTT",
    "msvd": "MSVD",
    "didemo": "DiDeMo",
    "vatex": "VATEX",
    "youcook2": "YouCook2",
}
"""Benchmark -> what MMEB-V2 calls its data set (github.com/TIGER-AI-Lab/VLM2Vec, experiments/report_score_v2.py)."""


def write_mmeb(out: Path, *, results: dict[str, Any]) -> Path | None:
    """Write the text-to-video figures of `--as mmeb-v2` as VLM2Vec's scripts read them.

    The file holds `hit@1`, `ndcg_linear@5` and so on as fractions, `num_pred` and `num_data` (numbers of queries). A
    figure that depends on the order of ties is its lower bound.

    Args:
      out: folder of the report; receives `video/DATASET_score.json`.
      results: the content of `retrieval.json`.

    Returns:
      The file; None where `--as mmeb-v2` was not asked for.
    """
    read = next((one for name, one in results.get(READ_AS, {}).items() if name.partition(":")[0] == MMEB), None)
    if read is None:
        return None
    figures = {key: value[0] if isinstance(value, list) else value for key, value in read["figures"]["t2v"].items()}
    queries = results["text_to_video"]["n"]
    path = out / "video" / f"{_name(results['protocol'])}_score.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures | {"num_pred": queries, "num_data": queries}, indent=4)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _name(protocol: dict[str, Any]) -> str:
    benchmark = (protocol.get("benchmark_protocol") or {}).get("name", "")
    return _NAMES.get(benchmark) or Path(protocol.get("dataset") or "retrieval").name
