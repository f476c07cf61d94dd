"""A frozen language model as the caption decoder: from the config to a run, a bundle, captions; what does not fit."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from language_models import GOLDEN, gpt2_folder

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.options import DataOptions
from twinreel.encode.predict.captioner import load_captioner
from twinreel.engine.keeping.init_from import InitFrom
from twinreel.evaluate.caption import caption_split
from twinreel.models.layers.blocks import Context
from twinreel.pretrain.begin import read_params, with_language_model, with_sources
from twinreel.pretrain.objective import make_objective
from twinreel.pretrain.pretrain import pretrain
from twinreel.pretrain.synthetic import batch_like
from twinreel.pretrain.terms.captioning import caption_targets
from twinreel.zoo.build import abstract
from twinreel.zoo.bundle import write_bundle
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.language_models import PLACE
from twinreel.zoo.load import load_model, locate
from twinreel.zoo.merge import is_merged, merged

HEAD = {"kind": "language_model", "latents": 3, "resampler_depth": 1, "sound": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_data):
    """The language model; its words are the commonest of the captions."""
    words = " ".join(text for row in Records(tiny_data).rows("train") for text in row["captions"]).split()
    return gpt2_folder(tmp_path_factory.mktemp("lm") / "gpt2", words=sorted(set(words), key=words.count)[-36:])


def config_of(folder, overrides, **head):
    config = load_config(
        "demo", overrides=[*overrides, "train.steps=1", "train.checkpoint_every=1", "optimizer.warmup_steps=0"]
    )
    with config.unlocked():
        config.data.audio_seconds = 0.5
        config.model.audio = {"mels": 16, "width": 8, "depth": 1, "heads": 2}
        config.model.heads = {"captioning": {"source": str(folder), **HEAD, **head}}
        config.loss.terms = {"captioning": {"weight": 1.0}}
        config.evaluations = {}
    return config


@pytest.fixture(scope="module")
def run(folder, tiny_overrides, tmp_path_factory):
    """A run of one step with low-rank updates of the language model, whose folder is then gone."""
    workdir, own = tmp_path_factory.mktemp("captions") / "run", shutil.copytree(folder, folder.with_name("own"))
    pretrain(config_of(own, tiny_overrides, adapt={"lora": {"rank": 2}}), workdir=workdir)
    shutil.rmtree(own)
    return workdir


def test_a_run_is_resumed_without_the_folder_of_its_language_model(run, folder, tiny_overrides, tmp_path):
    """Its checkpoint has the parameters and the tokenizer."""
    workdir, own = shutil.copytree(run, tmp_path / "run"), folder.with_name("own")
    longer = config_of(own, tiny_overrides, adapt={"lora": {"rank": 2}})
    with longer.unlocked():
        longer.train.steps = 2
    assert pretrain(longer, workdir=workdir, overwrite_config=True).step == 2
    one, other = locate(run), locate(workdir)
    assert one.spec == other.spec
    path = f"{PLACE}/blocks/layers/attention/qkv"
    np.testing.assert_array_equal(one.params()[f"{path}/kernel"], other.params()[f"{path}/kernel"])
    assert np.abs(one.params()[f"{path}/lora/b"] - other.params()[f"{path}/lora/b"]).max() > 0


def test_the_language_model_stays_as_it_is_and_what_is_around_it_learns(run, folder):
    located, public = locate(run), convert(folder)
    after = located.params()
    kept = [path for path in after if path.startswith(PLACE) and "/lora/" not in path]
    assert {path.removeprefix(PLACE) for path in kept} == {path.removeprefix("decoder") for path in public.params}
    for path in kept:
        np.testing.assert_array_equal(after[path], public.params[path.replace(PLACE, "decoder")], err_msg=path)
    head = "heads/captioning/"
    for path in (f"{head}decoder/layers/gates", f"{PLACE}/blocks/layers/attention/qkv/lora/b"):
        assert np.abs(after[path]).max() > 0, path
    origin = located.spec.origin["sources"]["heads.captioning"]
    assert origin["family"] == "gpt2" and "MIT" in origin["licence"]
    assert located.spec.joint_heads["captioning"]["tokenizer"] == public.spec.tokenizer


def test_captions_are_in_the_tokens_of_the_language_model_also_from_a_bundle(run, folder, tiny_data, tmp_path):
    captioner = load_captioner(run, options={"max_tokens": 5})
    rows = Records(tiny_data).rows("test")
    found = caption_split(captioner, data=tiny_data)["clips"]
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(found) == len(rows) and {word for one in found for word in one["caption"].split()} <= set(words)
    file = tiny_data.parent / "videos" / rows[0]["file"]
    [of_file] = captioner.caption([file], workers=1)
    assert set(of_file["caption"].split()) <= set(words)
    located = locate(run)
    bundle = write_bundle(tmp_path / "bundle", spec=located.spec, params=located.params())
    assert (bundle / "heads" / "captioning" / "tokenizer.json").is_file()
    assert locate(bundle).spec == located.spec and located.params().keys() == locate(bundle).params().keys()


def test_updates_of_the_language_model_are_merged_and_the_captions_stay(run, tiny_data):
    before, after = locate(run), merged(locate(run))
    head = after.spec.joint_heads["captioning"]
    assert not is_merged(before.spec) and is_merged(after.spec)
    assert "adapt" not in head and "adapters" not in head["decoder"]
    update, plain = before.params(), after.params()
    assert not [path for path in plain if "/lora/" in path]
    path = f"{PLACE}/blocks/layers/attention/qkv"
    a, b = (np.asarray(update[f"{path}/lora/{key}"], np.float64) for key in "ab")
    np.testing.assert_allclose(plain[f"{path}/kernel"], update[f"{path}/kernel"] + 16 / 2 * a @ b, atol=1e-7)
    ids = jax.numpy.asarray([[1, 2, 3]])
    logits = []
    for located in (before, after):
        decoder = load_model(located).heads["captioning"].decoder
        context = Context(jax.numpy.ones((1, 3, decoder.language_model.options.width)))
        logits.append(decoder.logits(decoder.states(ids, mask=ids > 0, context=context)))
    np.testing.assert_allclose(*logits, atol=1e-5)


def test_a_run_that_begins_with_a_checkpoint_takes_the_language_model_from_its_source(run, folder, tiny_overrides):
    """Towers of another run, all of them or some."""
    _, sources = with_sources(config_of(folder, tiny_overrides))
    assert sources is not None
    for parts in (None, ("video/.*",)):
        start = with_language_model(InitFrom(checkpoint=run, read=read_params, parts=parts), sources=sources)
        assert start.read is not None
        found = start.read(run)
        np.testing.assert_array_equal(found[f"{PLACE}/embedding"], convert(folder).params["decoder/embedding"])
        assert start.takes(f"{PLACE}/embedding") and ("text/embedding" in found) == (parts is None)


def objective_of(config):
    whole, _ = with_sources(config)
    data = DataOptions.of(whole.data)
    return make_objective(whole, data=data, vocab_size=100), whole


def test_a_language_model_that_is_not_frozen_is_trained_and_plans_know_its_captions(folder, tiny_overrides):
    frozen, whole = objective_of(config_of(folder, tiny_overrides))
    paths = [
        f"{PLACE}/embedding",
        f"{PLACE}/blocks/layers/attention/qkv/lora/a",
        "heads/captioning/decoder/layers/gates",
    ]
    [regex] = frozen.trainable
    assert [bool(re.search(regex, path)) for path in paths] == [False, True, True]
    free, _ = objective_of(config_of(folder, tiny_overrides, frozen=False))
    assert free.trainable == ()
    config = config_of(folder, tiny_overrides)
    with config.unlocked():
        config.adapt = {"bitfit": {}}
    adapted, _ = objective_of(config)
    found = [any(re.search(regex, path) for regex in adapted.trainable) for path in [*paths, "video/embed/kernel"]]
    assert found == [False, True, True, False]
    batch = batch_like(whole, rows=2)
    assert batch["caption_in"].shape == batch["caption_in_mask"].shape == (2, 24) and batch["caption_in"].max() < 40


def test_what_does_not_fit_is_named(folder, tiny_overrides, tmp_path):
    def refused(match, *, source=folder, change=lambda config: None, **head):
        config = config_of(source, tiny_overrides, **head)
        with config.unlocked():
            change(config)
        with pytest.raises(UserError, match=match):
            made, whole = objective_of(config)
            abstract(made.spec)
            caption_targets(DataOptions.of(whole.data), spec=made.spec)

    def without(*names):
        other = shutil.copytree(folder, tmp_path / "-".join(names))
        for name in names:
            (other / name).unlink()
        return other

    refused("has no tokenizer, and captions are written", source=without("tokenizer.json", "tokenizer_config.json"))
    refused("does not say which token ends a text", source=without("tokenizer_config.json"))
    large = gpt2_folder(tmp_path / "large", words=[f"w{n}" for n in range(60)])
    refused("the tokenizer has 63 tokens and the language model 40; they do not belong", source=large)
    refused("is no language model .it has: text", source=GOLDEN / "bert")
    refused("captioning.source=.*nowhere", source=tmp_path / "nowhere")
    refused("needs a source; set config.model.heads.captioning.source", source="")
    refused("config.model.heads.captioning.start_id is what its source says", start_id=3)
    refused("did you mean 'lora'", adapt={"lroa": {}})
    refused(r"adapt.lora.layers='.up' is found in no path", adapt={"lora": {"layers": "^up"}})
    refused("did you mean 'latents'", latent=4)
    refused("latents=0 and resampler_depth=1 must be at least 1", latents=0)
    refused("every=3 must divide the 2 blocks", every=3)
    refused("sound=True needs sound", change=lambda config: config.data.update({"audio_seconds": 0.0}))
    refused("context_length=32 tokens and the one that begins", change=lambda c: c.data.update({"context_length": 32}))
    refused("writes captions; set it to 'captions'", change=lambda c: c.data.update({"text_from": "transcript"}))
