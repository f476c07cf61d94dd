"""Re-ranking by heads that see text and clip together, against loops in float64 over moments decoded here."""

import dataclasses
import doctest
import json
from types import SimpleNamespace

import jax
import joint_loops
import numpy as np
import pytest
from serve_films import QUICK, SETTINGS
from small_encoder import drawn_encoder

from twinreel.base.errors import UserError
from twinreel.data.media.decode import decode_clip
from twinreel.serve.index.build import build_index
from twinreel.serve.index.models import opened_of
from twinreel.serve.search import rerank
from twinreel.serve.search.collection import Collection
from twinreel.serve.search.command import main
from twinreel.serve.search.engine import SearchOptions, search
from twinreel.serve.search.filters import Filters
from twinreel.serve.search.query import Term, embed_terms

HEADS = {"text_pooling": {"kind": "x_pool", "block": 3}, "matching": {"kind": "cross_encoder", "depth": 1, "heads": 2}}
TEXT = "a film that becomes brighter"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return drawn_encoder(heads=HEADS, audio=None).save(tmp_path_factory.mktemp("model") / "heads")


@pytest.fixture(scope="module")
def index(films, bundle, tmp_path_factory):
    from twinreel.encode.embed.encoder import load

    folder = tmp_path_factory.mktemp("rerank") / "library"
    opened = opened_of(load(bundle), name="heads", source=str(bundle), fps=4.0)
    build_index([str(films)], folder=folder, opened=opened, settings=SETTINGS, options=QUICK)
    return folder, opened


def wanted_scores(opened, moments):
    """Both heads' scores of the text with moments `(path, start_s, end_s)`, float64 [2,m]."""
    frames = []
    for path, start_s, end_s in moments:
        window = {} if path.endswith(".png") else {"start_s": start_s, "end_s": end_s}
        frames.append(opened.frames(decode_clip(path, options=opened.decode, **window)))
    model, encoder = opened.encoder.model, opened.encoder
    _, seen = model.encode_with_tokens("video", inputs={"video": jax.numpy.asarray(np.stack(frames))})
    ids, mask, _ = encoder.tokenizer.encode([TEXT], context_length=encoder.input.context_length)
    given = {"text": jax.numpy.asarray(ids), "text_mask": jax.numpy.asarray(mask)}
    text, tokens = model.encode_with_tokens("text", inputs=given)
    pooled = [joint_loops.x_pool(model.heads["text_pooling"], text[0], clip) for clip in model.clips(seen).frames]
    odds = [joint_loops.cross_encoder(model.heads["matching"], tokens[0][mask[0]], clip) for clip in seen]
    return np.array([odds, pooled])


def test_hits_have_the_scores_of_loops(index, monkeypatch, capsys):
    folder, opened = index
    monkeypatch.setattr("twinreel.serve.search.opened.open_model", lambda *_, **__: opened)
    assert main([str(folder), TEXT, "--json", "--limit", "8"]) == 0
    plain = json.loads(capsys.readouterr().out)["hits"]
    with Collection(folder) as collection:
        moments = [(hit["path"], *collection.moments(hit["file"])[hit["moment"]]) for hit in plain]
    wanted = wanted_scores(opened, moments)
    for scores, (kind, k, limit) in zip(wanted, (("cross_encoder", 8, 6), ("x_pool", 7, 4)), strict=True):
        assert main([str(folder), TEXT, "--json", "--rerank", f"{kind}:k={k}", "--limit", str(limit)]) == 0
        found = json.loads(capsys.readouterr().out)
        order = np.argsort(-scores[:k])[:limit]
        assert [hit["moment"] for hit in found["hits"]] == [plain[i]["moment"] for i in order]
        assert found["unit"] == kind and order.tolist() != list(range(limit))  # it is another order
        for hit, i in zip(found["hits"], order, strict=True):
            assert hit["score"] == pytest.approx(scores[i], abs=1e-4)
            assert hit["spans"] == plain[i]["spans"]  # cosines, as before


def test_the_cosine_is_added_and_what_is_gone_is_told(index, monkeypatch):
    folder, opened = index
    with Collection(folder) as collection:
        wanted = embed_terms([Term(kind="text", value=TEXT)], opened=opened, settings=SETTINGS)
        plain = search(collection, wanted, filters=Filters(), options=SearchOptions(limit=4))
        given = {"wanted": wanted, "collection": collection, "opened": opened}
        alone, both = (
            {
                hit.moment: hit.score
                for hit in rerank.rerank_jointly(
                    plain, asked=rerank.JointRerank(kind="cross_encoder", k=4, cosine=cosine), **given
                )[0].hits
            }
            for cosine in (0.0, 2.0)
        )
        for hit in plain.hits:
            assert both[hit.moment] == pytest.approx(alone[hit.moment] + 2 * hit.score, abs=1e-5)
        gone = collection.files([plain.hits[1].file.id])[plain.hits[1].file.id].path
        real = rerank.Job
        renamed = {gone: gone + ".gone"}
        monkeypatch.setattr(rerank, "Job", lambda *, path, **rest: real(path=renamed.get(path, path), **rest))
        asked = rerank.JointRerank(kind="cross_encoder", k=4, cosine=0.0)
        results, failed = rerank.rerank_jointly(plain, asked=asked, **given)
        assert len(results.hits) == 3 and failed == [f"{gone}: file does not exist"]


def test_mistakes(index):
    assert doctest.testmod(rerank).failed == 0
    folder, opened = index
    for given, message in (("cross_encoder:k=0", "k must be a number of hits"), ("x_pool:kk=3", "did you mean 'k'")):
        with pytest.raises(UserError, match=message):  # before the model is loaded
            main([str(folder), "a", "--rerank", given])
    asked, vectors = rerank.JointRerank(kind="cross_encoder", k=5, cosine=0.0), np.ones((1, 6), np.float32)

    def wanted(*terms):
        return [rerank.Wanted(term=term, vectors=vectors) for term in terms]

    text, minus, like = (Term(kind=kind, value="a", weight=weight) for kind, weight in _TERMS)
    for terms in ((text, minus), (like,), (dataclasses.replace(text, side="transcript"),)):
        with pytest.raises(UserError, match="compares one text with what is seen; got"):
            rerank.check_rerank(asked, wanted=wanted(*terms), opened=opened)
    plain = SimpleNamespace(spec=opened.encoder.spec.replace(heads={}))
    with pytest.raises(UserError, match="needs a model with the head 'matching', and plain has: none"):
        without = SimpleNamespace(encoder=plain, row=SimpleNamespace(source="plain"))
        rerank.check_rerank(asked, wanted=wanted(text), opened=without)
    rerank.check_rerank(asked, wanted=wanted(text), opened=opened)


_TERMS = (("text", 1.0), ("text", -0.5), ("like", 1.0))
