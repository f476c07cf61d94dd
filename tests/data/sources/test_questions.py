"""Video question answering read from the owners' files (samples in conftest.py, in the documented formats)."""

import pytest

from twinreel.base.errors import UserError
from twinreel.data.manifest import Question
from twinreel.data.sources.registry import get_source


def test_questions_of_a_video_are_one_clip(read):
    found = read("msrvtt_qa")
    assert [(clip.clip_id, clip.path, clip.split) for clip in found.clips] == [
        ("video7", "video7", "train"),
        ("video8", "video8", "test"),
    ]
    assert found.clips[0].questions == (
        Question(question="what runs?", answers=("dog",)),
        Question(question="where is it?", answers=("park",)),
    )
    assert found.notes == {"split val left out, because --annotations has no val_qa.json": 1}
    assert "train clips: the files have 1, the protocol says 6,513" in found.deviations()


def test_the_mapping_names_the_videos_of_msvd_qa(read):
    (clip,) = read("msvd_qa").clips
    assert (clip.clip_id, clip.path, clip.split) == ("vid1", "-a_b_5_15", "val")
    assert [other.path for other in get_source("msvd_qa").alternatives(clip)] == ["vid1"]
    (clip,) = read("msvd_qa", {"youtube_mapping.txt": None}).clips
    assert clip.path == "vid1"


def test_activitynet_qa_joins_questions_and_answers(read):
    (clip,) = read("activitynet_qa").clips
    assert clip.questions == (Question(question="is it a dog", answers=("yes",), type="yes/no"),)
    assert [other.path for other in get_source("activitynet_qa").alternatives(clip)] == ["v_-a_b"]


def test_next_qa_has_five_options_and_the_right_one_by_place_or_text(read):
    (clip,) = read("next_qa").clips
    options = tuple("abcde")
    assert clip.questions == (
        Question(question="why, then", options=options, correct=2, type="CW"),
        Question(question="what next", options=options, correct=4, type="TN"),
    )
    assert (clip.clip_id, clip.path) == ("4010", "3238")


HEAD = "video,question,answer,type,a0,a1,a2,a3,a4\n"


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("msrvtt_qa", "train_qa.json", '[{"answer": "dog", "question": "what?"}]', "entry 0: has no 'video_id'"),
        ("msrvtt_qa", "train_qa.json", '[{"answer": 3, "question": "what?", "video_id": 1}]', "'answer' is 3"),
        ("msvd_qa", "youtube_mapping.txt", "-a_b vid9\n", "does not name 'vid1'"),
        ("msvd_qa", "youtube_mapping.txt", "-a_b\n", "has 1 fields, wanted two"),
        ("activitynet_qa", "test_a.json", "[]", "has no answer in .*test_a.json"),
        ("activitynet_qa", "test_a.json", '[{"answer": "a", "type": 9, "question_id": "q"}]', "'type' is 9, wanted 0"),
        ("activitynet_qa", "test_a.json", None, "test_a.json"),
        ("next_qa", "val.csv", HEAD + "1,why,7,CW,a,b,c,d,e\n", r"questions\[0\]\.correct' is 7"),
        ("next_qa", "val.csv", HEAD + "1,why,x,CW,a,b,c,d,e\n", "answer is 'x', wanted a number"),
        ("next_qa", "val.csv", None, "train.csv"),
    ],
)
def test_faults_are_named(read, name, file, text, message):
    with pytest.raises(UserError, match=message):
        read(name, {file: text})
