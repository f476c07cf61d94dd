"""Write clap/: tiny CLAP models without and with fusion, and what transformers makes of sounds and texts.

Run with transformers 5.24.0 and torch 2.14.1 (not with twinreel's own environment):
`python tests/golden/weights/make_clap.py tests/golden/weights`

Sounds are made by `sound`, which the tests know, too; the files do not hold them. With a seed as a second argument the
weights are others, and `io.npz` holds the sounds: `tests/interop/check_clap.py`.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

OUT = Path(sys.argv[1]) / "clap"
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 0
LENGTHS = (96_000, 52_800, 14_399)  # samples: all 2 s; more than half; filled up with six repeats
TEXTS = ["a dog barks", "Rain, on a tin roof.", "a"]
AUDIO = {
    **{"spec_size": 64, "num_mel_bins": 16, "window_size": 4, "patch_embeds_hidden_size": 8, "depths": [2, 2, 1]},
    **{"num_attention_heads": [2, 4, 4], "num_hidden_layers": 3, "hidden_size": 32, "mlp_ratio": 2.0},
}
WORDS = {
    "vocab_size": 270,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
}
KINDS = {"unfused": {"truncation": "rand_trunc"}, "fused": {"truncation": "fusion"}}


def sound(samples, *, seed):
    """Deterministic noise that rises and falls, int16."""
    i = np.arange(samples, dtype=np.int64)
    noise = (i * i // (113 + seed) + 7919 * i) % 4001 - 2000
    return (noise * (1 + i % 9600 // 2400) + (i * 37) % 601).astype(np.int16)


def randomised(model):
    """Give every parameter, and the statistics of the spectrogram, a value that matters."""
    torch.manual_seed(1 + SEED)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.15))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(torch.randn_like(buffer) - (40 if "audio_encoder.batch_norm" in name else 0))
        if name.endswith("running_var"):
            buffer.mul_(1 + torch.rand_like(buffer) * (100 if "audio_encoder.batch_norm" in name else 1))
    return model.eval()


def tokenizer():
    """Bytes, with the ids and the ends of RoBERTa."""
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("o", "g"), ("Ġ", "a"), ("a", "r")]
    words += ["".join(pair) for pair in merges]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=30, **ends)


def main():
    torch.set_grad_enabled(False)
    for name, kind in KINDS.items():
        folder, fused = OUT / name, name == "fused"
        fusion = {"enable_fusion": fused, "fusion_type": "aff_2d" if fused else None}
        config = hf.ClapConfig(
            audio_config=AUDIO | fusion, text_config=WORDS | {"max_position_embeddings": 34}, projection_dim=12
        )
        model = randomised(hf.ClapModel(config))
        features = hf.ClapFeatureExtractor(feature_size=16, max_length_s=2, **kind)
        tokens = tokenizer()
        for one in (model, features, tokens):
            one.save_pretrained(folder)
        found = {"lengths": np.array(LENGTHS), "texts": np.array(TEXTS)}
        if SEED:
            sounds = [sound(length, seed=seed) for seed, length in enumerate(LENGTHS)]
            found["sound"] = np.stack([np.pad(one, (0, max(LENGTHS) - len(one))) for one in sounds])
        vectors, pictures = [], []
        for seed, length in enumerate(LENGTHS):  # one by one: fusion draws which of a batch counts as longer
            x = features(sound(length, seed=seed) / 32768.0, sampling_rate=48_000, return_tensors="pt")
            assert not fused or x["is_longer"].all()
            pictures.append(x["input_features"][0, 0])
            out = model.get_audio_features(
                **{key: value.float() if key == "input_features" else value for key, value in x.items()}
            )
            vectors.append(out.pooler_output[0] if hasattr(out, "pooler_output") else out[0])
        words = tokens(TEXTS, return_tensors="pt", padding=True)
        given = {"input_ids": words["input_ids"], "attention_mask": words["attention_mask"]}
        text = model.get_text_features(**given)
        found |= {"ids": given["input_ids"].int(), "mask": given["attention_mask"].bool()}
        found |= {"audio": torch.stack(vectors), "mel": torch.stack(pictures)[:, ::10].float()}
        found["text"] = text.pooler_output if hasattr(text, "pooler_output") else text
        np.savez_compressed(folder / "io.npz", **{key: np.asarray(value) for key, value in found.items()})
        print(name, {key: np.shape(value) for key, value in found.items()})


main()
