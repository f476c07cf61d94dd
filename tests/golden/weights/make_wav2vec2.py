"""Write wav2vec2/: tiny models with random weights and what they give (transformers 5.24.0, torch 2.13.0).

Run once, elsewhere: `python make_wav2vec2.py .`. The tests read the files only.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from make_clip import randomised
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Model

LENGTHS = (2000, 1111, 500)


def write(folder, model, inner, *, normalise):
    """Write the model and io.npz: each sound is given to the model alone, without padding."""
    model.save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True)
    extractor.save_pretrained(folder)
    rng = np.random.default_rng(1)
    audio = np.zeros((len(LENGTHS), LENGTHS[0]), np.int16)
    found = {"lengths": np.array(LENGTHS, np.int32)}
    for row, length in enumerate(LENGTHS):
        audio[row, :length] = rng.normal(500, 4000, length).astype(np.int16)
        given = extractor(audio[row, :length].astype(np.float32) / 32768, sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            found[f"tokens_{row}"] = inner(given["input_values"]).last_hidden_state[0].numpy()
    np.savez(folder / "io.npz", audio=audio, **found)


def main(folder):
    """Write both forms."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    sizes |= {"conv_dim": (12, 16, 20), "conv_kernel": (10, 3, 2), "conv_stride": (5, 3, 2), "vocab_size": 9}
    sizes |= {"num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 3, "codevector_dim": 8}
    base = randomised(Wav2Vec2Model(Wav2Vec2Config(**sizes, num_conv_pos_embeddings=8)))
    write(folder / "wav2vec2" / "base", base, base, normalise=True)
    form = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
    large = randomised(Wav2Vec2ForCTC(Wav2Vec2Config(**sizes, **form, num_conv_pos_embeddings=7)))
    write(folder / "wav2vec2" / "large", large, large.wav2vec2, normalise=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
