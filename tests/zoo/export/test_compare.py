"""What a written model is compared on."""

from public_models import converted

from twinreel.zoo.export.compare import is_naflex, largest_difference, random_inputs


def test_naflex_is_compared_on_frames_that_both_forms_take(tmp_path):
    """A column of patches is a sequence to the model, and a narrow picture to SigLIP of fixed size."""
    made = converted("siglip2", tmp_path / "source")[0]
    spec = made.spec
    (video,) = random_inputs(spec, rows=2)["video"]
    assert is_naflex(spec) and video.shape[2:] == (17 * 8, 8, 3)
    assert video[0, 0, 0, :2].tolist() == [[1, 0, 0], [16, 0, 0]]
    fixed = dict(spec.towers["video"]) | {"image": dict(spec.towers["video"]["image"]) | {"naflex": False}}
    other = spec.replace(towers={**spec.towers, "video": fixed})
    assert len(largest_difference((spec, made.params), (other, made.params))) == 2
