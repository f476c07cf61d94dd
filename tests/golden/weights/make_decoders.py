"""Write tiny GPT-2, Llama and Gemma with random weights, their logits, and what transformers generates with them.

Run with transformers 5.24.0 and torch (not with twinreel's own environment):
`python tests/golden/weights/make_decoders.py tests/golden/weights`
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers as hf

OUT = Path(sys.argv[1])
RNG = np.random.default_rng(7)
V, PAD, NEW = 40, 1, 8
LENGTHS = (5, 3, 1)  # of the prompts, padded on the left to 5

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": V}
MODELS = {
    "gpt2": hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=V, n_positions=32, n_embd=24, n_layer=2, n_head=4)),
    "llama": hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=32)),
    "gemma": hf.GemmaForCausalLM(
        hf.GemmaConfig(**SIZES, num_key_value_heads=1, head_dim=8, max_position_embeddings=32)
    ),
}
PROMPT = RNG.integers(2, V, (3, 5))
MASK = np.arange(5)[None] >= 5 - np.array(LENGTHS)[:, None]
PROMPT = np.where(MASK, PROMPT, PAD)


def randomised(model):
    """Give every parameter a value that matters, so that likely tokens differ from place to place."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.3))
    return model.eval()


def written(model, *, eos, **how):
    """Return the generated tokens [rows, NEW], and scores of a beam search."""
    given = {"attention_mask": torch.tensor(MASK).long(), "max_new_tokens": NEW, "do_sample": False}
    given |= {"pad_token_id": PAD, "eos_token_id": eos, "return_dict_in_generate": True, "output_scores": True}
    found = model.generate(torch.tensor(PROMPT), **given, **how)
    tokens = found.sequences[:, PROMPT.shape[1] :].numpy()
    tokens = np.pad(tokens, ((0, 0), (0, NEW - tokens.shape[1])), constant_values=PAD)
    return tokens.astype(np.int32), getattr(found, "sequences_scores", None)


for name, model in MODELS.items():
    model = randomised(model)
    folder = OUT / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    ids = RNG.integers(2, V, (3, 9))
    arrays = {"ids": ids.astype(np.int32), "logits": model(torch.tensor(ids)).logits.detach().numpy()}
    free, _ = written(model, eos=None)
    eos = int(free[0, 3])  # a token that does occur
    arrays |= {
        "prompt": PROMPT.astype(np.int32),
        "mask": MASK,
        "eos": np.int32(eos),
        "greedy": written(model, eos=eos)[0],
    }
    for key, penalty in (("beam", 1.0), ("short", -0.5)):
        how = {"num_beams": 3, "num_return_sequences": 3, "length_penalty": penalty}
        arrays[key], scores = written(model, eos=eos, **how)
        arrays[f"{key}_scores"] = scores.numpy()
    np.savez_compressed(folder / "io.npz", **arrays)
    print(name, eos, arrays["greedy"].tolist(), arrays["beam"][:3].tolist(), arrays["beam_scores"][:3])
