"""Figures of retrieval in the form that the Hugging Face Hub reads from a model card (`model-index`)."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

TASKS = {"text_to_video": "text-to-video-retrieval", "video_to_text": "video-to-text-retrieval"}
_METRICS = {"R@1": "recall_at_1", "R@5": "recall_at_5", "R@10": "recall_at_10", "MdR": "median_rank"}
_ARGUMENTS = ("frames", "windows", "captions", "clip_side", "videos", "texts", "subset_id", "weights_sha256")


def model_index(results: Mapping[str, Any], *, name: str) -> list[dict[str, Any]]:
    """Return the value of `model-index`.

    Args:
      results: content of `retrieval.json`.
      name: of the model.

    Returns:
      One model with a result per direction: recalls in percent and the median rank; the arguments of the data set say
      under which protocol. Figures that were measured on a part of a test set are left out, since a leaderboard that
      reads them shows no mark.
    """
    if results.get("marked"):
        return []
    protocol = results["protocol"]
    benchmark = (protocol.get("benchmark_protocol") or {}).get("name") or protocol.get("dataset") or "unnamed"
    arguments = {key: protocol[key] for key in _ARGUMENTS if protocol.get(key) not in (None, "")}
    found = [
        EvalResult(
            task_type=task,
            task_name=f"zero-shot {task.replace('-', ' ')}",
            dataset_type=benchmark,
            dataset_name=benchmark,
            dataset_split=protocol.get("split") or None,
            dataset_args=arguments,
            metric_type=kind,
            metric_name=key,
            metric_value=round(results[direction][key], 4),
        )
        for direction, task in TASKS.items()
        for key, kind in _METRICS.items()
    ]
    return eval_results_to_model_index(name, found)
