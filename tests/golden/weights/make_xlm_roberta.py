"""Write a tiny XLM-R with random weights and its tokenizer, and what transformers makes of texts in several languages.

Run with transformers 5.24.0, sentencepiece 0.2.3 and torch (not with twinreel's own environment):
`python tests/golden/weights/make_xlm_roberta.py tests/golden/weights`
"""

import importlib
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import transformers as hf
from transformers.utils import sentencepiece_model_pb2_new

importlib.import_module("transformers.convert_slow_tokenizer").import_protobuf = lambda *_: sentencepiece_model_pb2_new

OUT = Path(sys.argv[1]) / "xlm_roberta"
CORPUS = [
    *("a dog runs over the grass", "two children play with a red ball", "someone cuts onions in a kitchen"),
    *("ein Hund läuft über die Wiese", "zwei Kinder spielen mit einem roten Ball", "jemand schneidet Zwiebeln"),
    *("un chien court dans l'herbe", "deux enfants jouent au ballon rouge", "quelqu'un coupe des oignons"),
    *("собака бежит по траве", "двое детей играют", "一只狗在草地上奔跑", "犬が走る", "كلب يركض على العشب"),
]
TEXTS = [
    *("a dog runs over the grass", "Ein roter Ball, über der Wiese!", "l'herbe est  verte ici", ""),
    *("собака бежит", "一只狗在草地上", "犬が走る 🐶", "كلب", "a <s> dog </s> <pad> <mask>"),
]
LENGTH = 20

model = io.BytesIO()
sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(CORPUS * 3), model_writer=model, model_type="unigram", vocab_size=150,
    normalization_rule_name="identity", hard_vocab_limit=False, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
    num_threads=1, minloglevel=2,
)  # fmt: skip
OUT.mkdir(parents=True, exist_ok=True)
(OUT / "sentencepiece.bpe.model").write_bytes(model.getvalue())
with tempfile.TemporaryDirectory() as folder:  # for transformers, which also wants to know the family
    (Path(folder) / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    tokenizer = hf.XLMRobertaTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(OUT)
settings = json.loads((OUT / "tokenizer_config.json").read_text())
(OUT / "tokenizer_config.json").write_text(
    json.dumps({key: value for key, value in settings.items() if "file" not in key}, indent=2) + "\n"
)
torch.manual_seed(0)
size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
config = hf.XLMRobertaConfig(
    **size, vocab_size=len(tokenizer), max_position_embeddings=26, type_vocab_size=1,
    bos_token_id=0, pad_token_id=1, eos_token_id=2, layer_norm_eps=1e-5,
)  # fmt: skip
tower = hf.XLMRobertaModel(config)
with torch.no_grad():
    for parameter in tower.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.15))
tower.eval().save_pretrained(OUT)
given = tokenizer(TEXTS, truncation=True, max_length=LENGTH, padding="max_length", split_special_tokens=True)
ids, mask = np.array(given["input_ids"], np.int32), np.array(given["attention_mask"], bool)
out = tower(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
arrays = {"ids": ids, "mask": mask, "hidden": out.last_hidden_state.detach(), "pooled": out.pooler_output.detach()}
np.savez_compressed(OUT / "io.npz", **{key: np.asarray(value) for key, value in arrays.items()})
(OUT / "texts.json").write_text(json.dumps({"length": LENGTH, "texts": TEXTS}, ensure_ascii=False) + "\n")
