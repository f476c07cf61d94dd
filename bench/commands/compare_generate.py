"""`twinreel bench compare_generate`: tokens per second of language models beside transformers."""

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from ...base.parser import Parser
from ..measure.public import add_flags, checked_cases, two_sides
from ..sides.torch_generate import BEAMS, CASES

DESCRIPTION = f"""Compare the generation of texts with transformers in one run: tokens/s, greedy and by beam search.

  pip install torch transformers                     in any Python; nothing is downloaded at run time
  twinreel bench compare_generate --torch_python other/bin/python
  twinreel bench compare_generate --cases gpt2-124m --rows 16 --tokens 128 --torch_python other/bin/python

transformers makes a model with random weights and writes its folder; twinreel converts the folder. Both continue the
same prompts in float32 with a cache of keys and values, by as many tokens, greedily and with {BEAMS} beams. Printed:
the share of tokens that are the same, and tokens per second of both and their ratio, medians over rounds in which both
take turns, by wall and by CPU time. Compiling is not counted; it is reported as `compile_s` (--json).

Cases: {", ".join(CASES)}."""
MODES = ("greedy", "beam")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench compare_generate", description=DESCRIPTION)
    add_flags(parser, default=("gpt2-124m", "smollm2-135m"))
    parser.add_argument("--rows", type=int, default=8, help="prompts of a batch")
    parser.add_argument("--prompt", type=int, default=16, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to generate")
    args, _ = parser.parse(argv)
    cases = checked_cases(args, known=CASES, counts=("rows", "prompt", "tokens", "rounds"))
    sizes = {name: getattr(args, name) for name in ("rows", "prompt", "tokens")}
    found = []
    for case in cases:
        for row in compare(case, **sizes, rounds=args.rounds, torch_python=args.torch_python):
            found.append(row)  # told at once: a stopped run keeps what it has measured
            rates = f"{row['tokens_per_s']:.0f} tokens/s, {row['wall_ratio']:.2f} times transformers'"
            print(f"{case} {row['mode']}: {rates} ({100 * row['equal']:.0f} % the same)", file=sys.stderr)
    print(json.dumps(found)) if args.json else _print(found)
    return 0


def compare(case: str, *, rows: int, prompt: int, tokens: int, rounds: int, torch_python: str) -> list[dict[str, Any]]:
    """Compare one model; returns a row for each of `MODES`.

    Args:
      case: a name of `torch_generate.CASES`.
      rows: prompts of a batch.
      prompt: tokens of a prompt.
      tokens: to generate.
      rounds: runs of each way; the first one is not counted where there are more.
      torch_python: a Python with torch and transformers.

    Raises:
      UserError: a side that cannot be run.
    """
    flags = [f"--rows={rows}", f"--prompt={prompt}", f"--tokens={tokens}"]
    with two_sides(case, sides="generate", flags=flags, torch_python=torch_python) as both:
        times = {mode: both.turns(mode, rounds=rounds) for mode in MODES}
        facts = {"ours": both.own, "public": both.theirs}
        return [_row(case, mode, pairs=pairs, count=rows * tokens, **facts) for mode, pairs in times.items()]


def _row(
    case: str, mode: str, *, pairs: list[Any], count: int, ours: dict[str, Any], public: dict[str, Any]
) -> dict[str, Any]:
    """Return the figures of one way; `pairs` are (wall s, CPU s, peak bytes) of both sides, `count` tokens a run."""
    row: dict[str, Any] = {"case": case, "mode": mode, "twinreel": ours["what"], "public": public["what"]}
    row |= {"parameters": public["parameters"], "equal": ours["equal"][mode], "compile_s": ours["compile_s"][mode]}
    for name, place in (("", 0), ("cpu_", 1)):
        row[f"tokens_per_{name}s"] = statistics.median(count / own[place] for own, _ in pairs)
        row[f"public_tokens_per_{name}s"] = statistics.median(count / other[place] for _, other in pairs)
        row[f"{name or 'wall_'}ratio"] = statistics.median(other[place] / own[place] for own, other in pairs)
    row["peak_bytes"], row["public_peak_bytes"] = (int(max(pair[i][2] for pair in pairs)) for i in range(2))
    return row


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{rows[0]['twinreel']} / {rows[0]['public']}, float32", title_justify="left")
    for name in ("model", "way", "same", "tokens/s", "ratio", "tokens/CPU s", "ratio", "GiB", "ratio"):
        table.add_column(name, justify="left" if name in ("model", "way") else "right")
    for row in rows:
        table.add_row(
            row["case"],
            row["mode"],
            f"{100 * row['equal']:.0f} %",
            f"{row['tokens_per_s']:.0f}",
            f"{row['wall_ratio']:.2f}",
            f"{row['tokens_per_cpu_s']:.0f}",
            f"{row['cpu_ratio']:.2f}",
            f"{row['peak_bytes'] / 2**30:.1f}",
            f"{row['peak_bytes'] / row['public_peak_bytes']:.2f}",
        )
    Console().print(table)
