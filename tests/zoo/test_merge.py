"""Merged updates: the same embeddings with plain weights, in bundles, exports and runs that begin with the model."""

import jax
import numpy as np
import pytest
from exported_models import clip_spec, random_params
from safetensors.numpy import load_file

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import fill
from twinreel.pretrain.begin import read_params
from twinreel.zoo.adapt import AdaptOptions, adapted
from twinreel.zoo.build import abstract
from twinreel.zoo.bundle import write_bundle
from twinreel.zoo.export.export import ExportOptions, export
from twinreel.zoo.load import locate
from twinreel.zoo.merge import is_merged, merged, merged_params, merged_spec
from twinreel.zoo.sources import find_sources

LAYERS = {"lora": {"layers": "^video/", "rank": 2}, "dora": {"layers": "^text/.*attention", "rank": 2}}
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle of CLIP's shape with updates that are not zero, beside prompts."""
    options = AdaptOptions(**LAYERS, prompts={"layers": "^text/", "count": 2})
    spec = adapted(clip_spec(), options=options)
    return write_bundle(tmp_path_factory.mktemp("adapted") / "bundle", spec=spec, params=random_params(spec))


def embeddings(located):
    """Of random clips and texts."""
    model = abstract(located.spec)
    fill(model, values=located.params())
    rng = np.random.default_rng(1)
    video = rng.integers(0, 256, (2, 2, 16, 16, 3), dtype=np.uint8)
    text, mask = rng.integers(1, 519, (2, 12), dtype=np.int32), np.ones((2, 12), bool)
    return jax.jit(lambda model: (model.encode_video(video), model.encode_text(text, mask=mask)))(model)


def test_embeddings_stay_and_prompts_stay(folder):
    before, after = locate(folder), merged(locate(folder))
    for one, other in zip(embeddings(before), embeddings(after), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert "adapters" not in after.spec.towers["video"] and list(after.spec.towers["text"]["adapters"]) == ["prompts"]
    assert not any("/lora/" in path for path in after.params())
    assert is_merged(after.spec) and merged(after) is after


def test_merged_matrices_are_those_of_a_loop(folder):
    located = locate(folder)
    params, plain = located.params(), merged_params(located.spec, params=located.params())
    for path, scale in (("video/image/blocks/layers/up", 8.0), ("text/blocks/layers/attention/qkv", 8.0)):
        kernel = params[f"{path}/kernel"].astype(np.float64)
        a, b = (params[f"{path}/lora/{key}"].astype(np.float64) for key in "ab")
        for layer in range(len(kernel)):
            kernel[layer] += scale * np.einsum("dr,re->de", a[layer], b[layer])
            if f"{path}/lora/magnitude" in params:
                for e in range(kernel.shape[2]):
                    length = np.sqrt(np.sum(kernel[layer, :, e] ** 2))
                    kernel[layer, :, e] *= params[f"{path}/lora/magnitude"][layer, e] / length
        np.testing.assert_allclose(plain[f"{path}/kernel"], kernel, rtol=1e-6, atol=1e-7)
        assert np.abs(kernel - params[f"{path}/kernel"]).max() > 0.1


def test_an_adapted_clip_exports_as_plain_clip(tmp_path):
    """The folder of transformers holds the merged matrices; the export itself compares its embeddings."""
    spec = adapted(clip_spec(), options=AdaptOptions(**LAYERS))
    bundle = write_bundle(tmp_path / "bundle", spec=spec, params=random_params(spec))
    made = export(bundle, out=tmp_path / "hf", options=ExportOptions(format="hf"))
    assert max(check.difference for check in made.checks) < 1e-5
    located, tensors = locate(bundle), load_file(made.folder / "model.safetensors")
    plain = merged_params(located.spec, params=located.params())
    image, text = plain["video/image/blocks/layers/up/kernel"], plain["text/blocks/layers/attention/out/kernel"]
    np.testing.assert_array_equal(tensors["vision_model.encoder.layers.0.mlp.fc1.weight"], image[0].T)
    np.testing.assert_array_equal(tensors["text_model.encoder.layers.0.self_attn.out_proj.weight"], text[0].T)
    assert not any("adapters" in tower for tower in locate(made.folder).spec.towers.values())


def test_prompts_have_no_place_in_a_public_model(folder, tmp_path):
    with pytest.raises(UserError, match=r"has prompts \(text tower\) from config\.adapt"):
        export(folder, out=tmp_path / "hf", options=ExportOptions(format="hf"))
    assert not (tmp_path / "hf").exists()


def test_a_model_of_sources_takes_the_merged_weights(folder):
    """Prompts come along with the tower that they belong to."""
    found = find_sources({"source": str(folder)}, data={})
    assert found is not None
    assert found.model["text"]["adapters"] == merged_spec(locate(folder).spec).towers["text"]["adapters"]
    wanted = merged(locate(folder)).params()
    assert found.params().keys() == wanted.keys()
    np.testing.assert_array_equal(found.params()["video/image/blocks/layers/up/kernel"],
                                  wanted["video/image/blocks/layers/up/kernel"])  # fmt: skip
    np.testing.assert_array_equal(read_params(folder)["text/blocks/layers/attention/qkv/kernel"],
                                  wanted["text/blocks/layers/attention/qkv/kernel"])  # fmt: skip
