"""Annotation files of benchmarks with faults: each is named with its file and line, or is the fault of one clip."""

import io

import h5py
import pytest
from scipy.io import savemat

from twinreel.base.errors import UserError
from twinreel.data.sources.registry import SOURCES, get_source

TIMES = "Temporal_Anomaly_Annotation_for_Testing_Videos.txt"


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        (
            "msrvtt",
            "MSRVTT_JSFUSION_test.csv",
            b"video_id,sentence\nvideo5,a\xff",
            r"line 2: is not UTF-8 .*b'\\xff' at byte 8",
        ),
        (
            "msrvtt",
            "MSRVTT_JSFUSION_test.csv",
            "id,sentence\n",
            r"line 1: wanted one column 'video_id', found .*id, sent",
        ),
        (
            "msrvtt",
            "MSRVTT_JSFUSION_test.csv",
            "video_id,sentence\na,b\na,c\n",
            r"line 3: clip 'a' stands in .*line 2 al",
        ),
        ("msrvtt", "MSRVTT_JSFUSION_test.csv", "video_id,sentence\na,b,c\n", r"line 2: has 3 fields, the header has 2"),
        ("msrvtt", "MSRVTT_train.9k.csv", "video_id\nvideo77\n", r"line 2: video_id 'video77' has no sentence"),
        (
            "msrvtt",
            "MSRVTT_data.json",
            '{"sentences": [{"video_id": 3}]}',
            r"sentences\[0\]: 'video_id' is 3, wanted a str",
        ),
        ("msrvtt", "MSRVTT_data.json", '{"sentences": [{"video_id": "a"}]}', r"sentences\[0\]: has no 'caption'"),
        ("msrvtt", "MSRVTT_data.json", "[" * 100_000, r"MSRVTT_data.json: is not JSON that can be read"),
        ("msvd", "captions_msvd.json", '{"c_1_9": ["a"], "c_1_9": ["b"]}', r"key 'c_1_9' is given twice"),
        ("msvd", "val_list.txt", "c_1_9\nc_1_9\n", r"line 2: id 'c_1_9' stands in .*line 1 already"),
        ("msvd", "val_list.txt", "e_1_9\n", r"val_list.txt: clip 'e_1_9' has no caption"),
        (
            "youcook2",
            "validation_youcook.csv",
            'end,start,task,text,video_id\n9,5,1,x,a\n9,5,1,"x,a\n',
            r"line 3: the quote that opens here is never closed",
        ),
        (
            "youcook2",
            "validation_youcook.csv",
            "end,start,task,text,video_id\nx,9,1,x,a\n",
            r"line 2: end is 'x', wanted seconds",
        ),
        ("kinetics400", "other_train.csv", "", r"both .* could be split 'train'"),
        ("qvhighlights", "highlight_val_release.jsonl", "{}", r"line 1: has no 'vid'"),
        (
            "activitynet",
            "train.json",
            '{"v": {"duration": 3, "timestamps": [[1]], "sentences": ["a"]}}',
            r"key 'v': timest",
        ),
        (
            "activitynet",
            "train.json",
            '{"v": {"duration": 1e999, "timestamps": [], "sentences": []}}',
            r"'duration' is inf",
        ),
        ("lsmdc", "LSMDC16_annos_training.csv", "a\tb\n", r"line 1: has 2 fields, wanted 6"),
        ("hmdb51", "shoot_bow_test_split1.txt", "a.avi 3\n", r"line 1: is 'a.avi 3', wanted a file and 0"),
        ("charades_sta", "charades_sta_train.txt", "A 1 2#x\n", r"line 1: is 'A 1 2#x', wanted `VIDEO START END##s"),
        (
            "msrvtt_mc",
            "msrvtt_mc_test.json",
            '[{"image": "a.mp4", "caption": ["x"], "answer": 0}]',
            r"two texts or more",
        ),
        ("msrvtt_mc", "msrvtt_mc_test.json", '[{"image": "a.mp4", "caption": ["x", "y"], "answer": 2}]', r"0 to 1"),
        (
            "msrvtt_mc",
            "msrvtt_mc_test.json",
            '[{"image": "a.mp4", "answer": 2}]',
            r"entry 0: has none of 'caption', 'op",
        ),
        ("ssv2_mc", "val.jsonl", '{"clip_name": "a", "options": ["x", "y"]}', r"line 1: 'answer'"),
        (
            "charades_mc",
            "charades_mc_test.json",
            '[{"video": "a", "option": ["x", "y"], "answer": [0]}]',
            r"entry 0: 'answer' is \[0\]; wanted 0 or 1 for each of the 2 options",
        ),
        (
            "charades_mc",
            "charades_mc_test.json",
            '[{"video": "a", "option": ["x", "x"], "answer": [0, 1]}]',
            r"entry 0: 'option' has 'x' twice",
        ),
        (
            "charades_mc",
            "charades_mc_test.json",
            '[{"video": "a", "option": ["x"], "answer": [1]}, {"video": "b", "option": ["y"], "answer": [1]}]',
            r"entry 1: 'option' are not the 1 options of the first entry",
        ),
        ("ucf_crime", "Anomaly_Train.txt", "Abuse001_x264.mp4\n", r"line 1: is 'Abuse001_x264.mp4', wanted CLASS/FILE"),
        ("ucf_crime", TIMES, "a.mp4 Abuse 1 2\n", r"line 1: is 'a.mp4 Abuse 1 2', wanted FILE CLASS START END"),
        ("ucf_crime", TIMES, "a.mp4 Abuse 9 2 -1 -1\n", r"line 1: event 9 2 is none"),
        ("ucf_crime", TIMES, "a.mp4 Normal 1 2 -1 -1\n", r"line 1: class 'Normal' with 1 events"),
        ("ucf_crime", TIMES, "a.mp4 Abuse -1 -1 -1 -1\n", r"line 1: class 'Abuse' with 0 events"),
        ("tvsum", "ydata-tvsum50.mat", "text", r"tvsum50.mat: is no MATLAB file of version 7.3"),
        ("summe", "Air_Force_One.mat", "text", r"One.mat: is no MATLAB file that can be read"),
        ("something_v2", "something-something-v2-labels.json", "{}", r"entry 0: label 'Holding .* does not stand in"),
        (
            "howto100m",
            "raw_caption.json",
            '{"v": {"start": [1], "end": [], "text": []}}',
            r"key 'v': has 1 start, 0 end",
        ),
    ],
)
def test_faults_are_named(read, name, file, text, message):
    with pytest.raises(UserError, match=message) as error:
        read(name, {file: text})
    assert file in str(error.value)


def test_byte_order_marks_and_carriage_returns_are_no_part_of_names(read):
    marked = "\ufeffvideo_id,sentence\r\nvideo5,a dog\r\n"
    ids = {"MSRVTT_train.9k.csv": "\ufeffvideo_id\r\nvideo0\r\n", "MSRVTT_JSFUSION_test.csv": marked}
    assert [(clip.clip_id, clip.split) for clip in read("msrvtt", ids).clips] == [
        ("video0", "train"),
        ("video5", "test"),
    ]
    assert read("msvd", {"val_list.txt": "\ufeffc_1_9\r\n"}).clips[1].clip_id == "c_1_9"


@pytest.mark.parametrize(
    ("name", "file", "text", "reason"),
    [
        (
            "youcook2",
            "validation_youcook.csv",
            "end,start,task,text,video_id\n0:05,00:00:09,1,x,a\n",
            "impossible window: end_s=5 is not after start_s=9 (validation_youcook.csv, line 2)",
        ),
        (
            "kinetics400",
            "kinetics_400_train.csv",
            "label,youtube_id,time_start,time_end\nrun,a,9,9\n",
            "impossible window: time_end=9 is not after time_start=9 (kinetics_400_train.csv, line 2)",
        ),
        (
            "qvhighlights",
            "highlight_val_release.jsonl",
            '{"qid": 1, "query": "q", "duration": 150, "vid": "v", "relevant_windows": [[148, 152]], '
            '"relevant_clip_ids": [], "saliency_scores": []}',
            "impossible window: relevant_windows has [148.0, 152.0], wanted 0 <= start < end <= duration=150",
        ),
    ],
)
def test_impossible_window_is_the_fault_of_one_clip(read, name, file, text, reason):
    assert read(name, {file: text}).clips[0].meta["refused"] == reason


@pytest.mark.parametrize("name", sorted(name for name in SOURCES if SOURCES[name].videos))
def test_an_empty_folder_is_an_error_that_names_the_files(name, tmp_path):
    with pytest.raises(UserError, match=r"has no .*\.(csv|json|jsonl|mat|txt) .*found: nothing.*--list") as error:
        SOURCES[name].read(tmp_path)
    assert any(word.strip(",;") in SOURCES[name].layout for word in str(error.value).split())
    with pytest.raises(UserError, match="is not a folder"):
        SOURCES[name].read(tmp_path / "none")


def test_options_that_do_not_exist():
    with pytest.raises(UserError, match=r"--fold does not belong to 'msrvtt'; its own flags: --variant, --train"):
        get_source("msrvtt").settings({"fold": 1})
    with pytest.raises(UserError, match=r"--fold is 4; 'ucf101' has: 1, 2, 3"):
        get_source("ucf101").settings({"fold": 4})
    with pytest.raises(UserError, match=r"unknown benchmark 'msrvt'; did you mean 'msrvtt'"):
        get_source("msrvt")
    assert get_source("msrvtt").settings({"train": "7k"}) == {"variant": "1ka", "train": "7k"}


@pytest.mark.parametrize(
    ("name", "file", "changed", "message"),
    [
        (
            "tvsum",
            "ydata-tvsum50.mat",
            {"user_anno": [[1, 2]]},
            r"0: 'user_anno' of shape \(1, 2\) has no number",
        ),
        ("tvsum", "ydata-tvsum50.mat", {"title": 3.0}, r"video 0: 'title' is float64 of shape \(1, 1\), wanted a text"),
        ("summe", "Air_Force_One.mat", {"nFrames": 5}, r"'user_score' has shape \(4, 2\), nFrames is 5 and FPS 2"),
        ("summe", "Air_Force_One.mat", {"FPS": 0.0}, r"wanted a row per frame, .* and a rate above 0"),
    ],
)
def test_matlab_files_with_faults(read, matlab, name, file, changed, message):
    with pytest.raises(UserError, match=message):
        read(name, {file: matlab[name](**changed)})


def test_matlab_files_of_other_content(read, tmp_path):
    other, file = tmp_path / "other.mat", io.BytesIO()
    with h5py.File(other, "w") as made:
        made["data"] = [1.0]
    with pytest.raises(UserError, match="has no tvsum50/video; wanted the file of TVSum's owners"):
        read("tvsum", {"ydata-tvsum50.mat": other.read_bytes()})
    savemat(file, {"gt_score": [1.0]})
    with pytest.raises(UserError, match="has no 'user_score'; wanted a file of SumMe's folder GT"):
        read("summe", {"Air_Force_One.mat": file.getvalue()})
