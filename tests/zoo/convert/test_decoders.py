"""Language models of transformers: logits, greedy texts and beam searches are those of the public code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import fill
from twinreel.models.generate import GenerateOptions, generate
from twinreel.zoo.build import abstract
from twinreel.zoo.convert import gpt2, llama
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import to_tensors
from twinreel.zoo.spec import ModelSpec

GOLDEN = Path(__file__).parents[2] / "golden" / "weights"
MODELS = {"gpt2": "gpt2", "llama": "llama", "gemma": "llama"}
PAD, NEW = 1, 8
WRITE = nnx.jit(generate, static_argnames=("options", "eos_id", "pad_id"))


@pytest.fixture(scope="module", params=MODELS)
def public(request):
    """Name, what `convert` gives, our model, and the public code's arrays."""
    made = convert(GOLDEN / request.param)
    spec = ModelSpec.from_dict(json.loads(json.dumps(made.spec.to_dict())))
    model = abstract(spec)
    fill(model, values=made.params)
    with np.load(GOLDEN / request.param / "io.npz") as file:
        return request.param, made, model, dict(file)


def test_logits_are_those_of_the_public_code(public):
    name, made, model, wanted = public
    found = nnx.jit(lambda decoder, text: decoder(text))(model.decoder, wanted["ids"])
    np.testing.assert_allclose(found, wanted["logits"], rtol=1e-4, atol=1e-4)
    assert made.family == MODELS[name] and made.spec.input.context_length == 32 and made.spec.embed_dim is None


def test_generated_texts_are_those_of_the_public_code(public):
    """Prompts of 5, 3 and 1 tokens, padded on the left."""
    name, _, model, wanted = public
    given = {"prompt": wanted["prompt"], "mask": wanted["mask"], "eos_id": int(wanted["eos"]), "pad_id": PAD}
    greedy = WRITE(model.decoder, options=GenerateOptions(max_tokens=NEW), **given)
    np.testing.assert_array_equal(greedy.tokens[:, 0], wanted["greedy"])
    assert (wanted["greedy"] == wanted["eos"]).any()
    for key, penalty in (("beam", 1.0), ("short", -0.5))[: 2 if name == "gpt2" else 1]:  # no matter of the decoder
        options = GenerateOptions(max_tokens=NEW, method="beam", beams=3, length_penalty=penalty)
        found = WRITE(model.decoder, options=options, **given)
        np.testing.assert_array_equal(found.tokens.reshape(9, NEW), wanted[key], err_msg=key)
        np.testing.assert_allclose(found.scores.reshape(9), wanted[f"{key}_scores"], rtol=1e-4)


def test_the_table_is_read_in_both_directions(public):
    name, made, _, _ = public
    decoder = dict(made.spec.towers["decoder"])
    start = "transformer." if name == "gpt2" else ""
    rules = gpt2.table(decoder=decoder, start=start) if name == "gpt2" else llama.table(decoder=decoder)
    back, file = to_tensors(made.params, rules=rules), load_file(GOLDEN / name / "model.safetensors")
    assert back.keys() == file.keys() - {"lm_head.weight"} | ({"lm_head.weight"} if name == "llama" else set())
    for key, value in back.items():
        np.testing.assert_array_equal(value, file[key], err_msg=key)


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        (
            "llama",
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}},
            "scales its rotary positions .'llama3'",
        ),
        ("llama", {"attention_bias": True}, "attention_bias in the config of"),
        ("llama", {"hidden_act": "relu"}, "hidden_act in the config of"),
        ("llama", {"intermediate_size": None}, "lacks 'intermediate_size'"),
        ("gpt2", {"activation_function": "tanh"}, "activation_function in the config"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_head": 3, "n_layer": 3}, "contradict its config"),
    ],
)
def test_what_a_config_names_and_we_do_not_have_is_an_error(tmp_path, name, changes, match):
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=match):
        convert(folder)
