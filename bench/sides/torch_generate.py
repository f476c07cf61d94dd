"""The public side of `twinreel bench compare_generate`: language models of transformers with random weights.

The file imports nothing of twinreel: another Python, which has torch and not twinreel, runs it by its path. It writes a
model's folder as its library does, with the prompts and the texts that it generates in io.npz, prints its facts as one
line of JSON, then generates for each line of standard input (`greedy`, `beam`) and prints wall and CPU seconds and the
peak of its memory.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

SMOLLM = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
GEMMA = {
    "hidden_size": 640,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 160,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2-124m": ("GPT2", {}),
    "smollm2-135m": ("Llama", SMOLLM | {"intermediate_size": 1536, "vocab_size": 49_152, "tie_word_embeddings": True}),
    "gemma-76m": ("Gemma", GEMMA | {"head_dim": 160, "intermediate_size": 2048, "vocab_size": 65_536}),
    "gpt2-demo": ("GPT2", {"n_embd": 128, "n_layer": 2, "n_head": 4, "vocab_size": 1000, "n_positions": 512}),
}
"""Name -> class of transformers, and the fields of its config; the first two have the sizes of public models."""
BEAMS = 4


def main() -> int:
    """Run the side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True, choices=CASES)
    parser.add_argument("--folder", type=Path, required=True)
    for name in ("rows", "prompt", "tokens"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    import numpy as np
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    name, fields = CASES[args.case]
    config = getattr(transformers, f"{name}Config")(**fields)
    model = getattr(transformers, f"{name}{'LMHeadModel' if name == 'GPT2' else 'ForCausalLM'}")(config).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim > 1:
            parameter.mul_(3.0)  # so that one token is clearly the likeliest
    model.save_pretrained(args.folder)
    prompt = torch.randint(2, config.vocab_size, (args.rows, args.prompt))
    how = {"do_sample": False, "max_new_tokens": args.tokens, "min_new_tokens": args.tokens, "pad_token_id": 0}
    how |= {"attention_mask": torch.ones_like(prompt), "eos_token_id": None}
    ways = {"greedy": how, "beam": how | {"num_beams": BEAMS, "length_penalty": 1.0}}

    def run(mode: str) -> Any:
        with torch.inference_mode():
            return model.generate(prompt, **ways[mode])[:, args.prompt :]

    made = {mode: run(mode).numpy().astype(np.int32) for mode in ways}
    np.savez(args.folder / "io.npz", prompt=prompt.numpy().astype(np.int32), **made)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    what = f"transformers {transformers.__version__}, torch {torch.__version__}"
    print(json.dumps({"what": what, "parameters": parameters, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        start, start_cpu = time.perf_counter(), time.process_time()
        run(line.strip())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(time.perf_counter() - start, time.process_time() - start_cpu, peak, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
