"""Write tiny BERT, RoBERTa, T5, ViT, DINOv2 and AST with random weights, and what transformers makes of them.

Run with transformers 5.24.0 and torch (not with twinreel's own environment):
`python tests/golden/weights/make_transformers.py tests/golden/weights`
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from transformers.models.audio_spectrogram_transformer import ASTFeatureExtractor

OUT = Path(sys.argv[1])
RNG = np.random.default_rng(5)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def randomised(model):
    """Give every parameter a value that matters."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.15))
    return model.eval()


def write(name, model, **arrays):
    folder = OUT / name
    model.save_pretrained(folder)
    kept = {key: np.asarray(value.detach() if torch.is_tensor(value) else value) for key, value in arrays.items()}
    np.savez_compressed(folder / "io.npz", **kept)
    print(name, {key: value.shape for key, value in kept.items()})


def texts(*, vocabulary, pad, eos=None):
    """Three texts of 4, 9 and 12 tokens, padded to 12."""
    ids = RNG.integers(3, vocabulary, (3, 12))
    lengths = np.array([4, 9, 12])
    mask = np.arange(12)[None] < lengths[:, None]
    if eos is not None:
        ids[np.arange(3), lengths - 1] = eos
    return np.where(mask, ids, pad), mask


BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "vocab_size": 50}
for name, kind, model_class in (
    ("bert", hf.BertConfig, hf.BertModel),
    ("bert_masked_lm", hf.BertConfig, hf.BertForMaskedLM),
    ("roberta", hf.RobertaConfig, hf.RobertaModel),
):
    config = kind(**BERT, max_position_embeddings=16)
    model = randomised(model_class(config))
    ids, mask = texts(vocabulary=50, pad=config.pad_token_id)
    encoder = model.bert if name == "bert_masked_lm" else model
    out = encoder(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
    pooled = {} if out.pooler_output is None else {"pooled": out.pooler_output}
    write(name, model, ids=ids.astype(np.int32), mask=mask, hidden=out.last_hidden_state, **pooled)

T5 = {"d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 2, "num_heads": 3, "vocab_size": 50}
T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 10}
for name, proj, model_class in (
    ("t5", "relu", hf.T5EncoderModel),
    ("t5_gated", "gated-gelu", hf.T5ForConditionalGeneration),
):
    config = hf.T5Config(**T5, feed_forward_proj=proj, tie_word_embeddings=False)
    model = randomised(model_class(config))
    ids, mask = texts(vocabulary=50, pad=0, eos=1)
    out = model.encoder(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
    write(name, model, ids=ids.astype(np.int32), mask=mask, hidden=out.last_hidden_state)


def pixels(images):
    x = ((images / 255) - np.array(MEAN)) / np.array(STD)
    return torch.tensor(x.astype(np.float32)).permute(0, 3, 1, 2)


VIT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
for name, config, model_class in (
    ("vit", hf.ViTConfig(**VIT, intermediate_size=40), hf.ViTModel),
    ("vit_classifier", hf.ViTConfig(**VIT, intermediate_size=40, qkv_bias=False), hf.ViTForImageClassification),
    ("dinov2", hf.Dinov2Config(**VIT, mlp_ratio=2), hf.Dinov2Model),
    (
        "dinov2_giant_form",
        hf.Dinov2WithRegistersConfig(**VIT, mlp_ratio=2, use_swiglu_ffn=True, num_register_tokens=3),
        hf.Dinov2WithRegistersForImageClassification,
    ),
):
    model = randomised(model_class(config))
    encoder = getattr(model, model.base_model_prefix, model)
    images = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    small = RNG.integers(0, 256, (2, 24, 16, 3), dtype=np.uint8)
    more = {"interpolate_pos_encoding": True} if name.startswith("vit") else {}
    hidden = encoder(pixel_values=pixels(images)).last_hidden_state
    other = encoder(pixel_values=pixels(small), **more).last_hidden_state[:, 0]
    write(name, model, pixels=images, hidden=hidden, other=small, other_class=other)
    hf.ViTImageProcessor(image_mean=list(MEAN), image_std=list(STD), size={"height": 32, "width": 32}).save_pretrained(
        OUT / name
    )

config = hf.ASTConfig(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    patch_size=4,
    frequency_stride=3,
    time_stride=2,
    max_length=40,
    num_mel_bins=16,
)
model = randomised(hf.ASTForAudioClassification(config))
extractor = ASTFeatureExtractor(num_mel_bins=16, max_length=40)
sounds = [RNG.normal(0, 3000, size).astype(np.int16) for size in (6_640, 4_000, 9_000)]
values = torch.tensor(np.stack([extractor(s / 32768, sampling_rate=16_000)["input_values"][0] for s in sounds]))
out = model.audio_spectrogram_transformer(input_values=values.float())
padded = np.stack([np.pad(sound[:6_640], (0, max(0, 6_640 - len(sound)))) for sound in sounds])
lengths = np.minimum([len(sound) for sound in sounds], 6_640).astype(np.int32)
write(
    "ast", model, audio=padded, lengths=lengths, values=values, pooled=out.pooler_output, hidden=out.last_hidden_state
)
extractor.save_pretrained(OUT / "ast")
