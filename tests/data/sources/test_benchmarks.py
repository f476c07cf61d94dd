"""Each benchmark's parser on files in its documented format."""

import json

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.manifest import Sentence, Span
from twinreel.data.sources.howto100m import nearest_in_time
from twinreel.data.sources.registry import SOURCES, get_source
from twinreel.finetune.examples.annotators import annotations_of
from twinreel.finetune.figures.anomaly import Film


def table(found):
    return [(clip.clip_id, clip.split, clip.captions) for clip in found.clips]


def test_every_source_has_a_sample_and_says_where_it_comes_from(benchmark_files):
    assert set(benchmark_files) == {name for name, source in SOURCES.items() if source.videos}
    assert all(source.published_at.startswith("http") and source.layout for source in SOURCES.values())


# --- retrieval ---


def test_msrvtt(read):
    assert table(read("msrvtt")) == [
        ("video0", "train", ("0: 1", "0: 0")),
        ("video3", "train", ("3: 1", "3: 0")),
        ("video5", "test", ("a dog runs",)),
    ]
    small = read("msrvtt", train="7k")
    assert [row[0] for row in table(small)] == ["video3", "video5"]
    assert "train clips: the files have 1, the protocol says 7,010" in small.deviations()
    full = read("msrvtt", variant="full")
    assert [row[:2] for row in table(full)] == [
        *(("video0", "train"), ("video3", "train"), ("video1", "val"), ("video4", "val")),
        *(("video2", "test"), ("video5", "test")),
    ]
    assert full.clips[-1].captions == ("5: 1", "5: 0")
    assert "test clips: the files have 2, the protocol says 2,990" in full.deviations()
    assert [row[:2] for row in table(read("msrvtt", variant="1kb"))] == [
        *(("video1", "train"), ("video2", "train"), ("video4", "test")),
    ]


def test_msrvtt_in_the_forms_of_the_owners_and_of_coco(read, benchmark_files):
    data = json.loads(benchmark_files["msrvtt"]["MSRVTT_data.json"])
    halves = [
        {"videos": data["videos"][:3], "sentences": [s for s in data["sentences"] if s["video_id"] < "video3"]},
        {"videos": data["videos"][3:], "sentences": [s for s in data["sentences"] if s["video_id"] >= "video3"]},
    ]
    whole = table(read("msrvtt", variant="full"))
    owners = {
        "MSRVTT_data.json": None,
        "train_val_videodatainfo.json": json.dumps(halves[0]),
        "test_videodatainfo.json": json.dumps(halves[1]),
    }
    assert table(read("msrvtt", owners, variant="full")) == whole
    coco = {"annotations": [{"image_id": s["video_id"], "caption": s["caption"]} for s in data["sentences"]]}
    changed = dict.fromkeys(owners) | {"MSR_VTT.json": json.dumps(coco)}
    found = read("msrvtt", changed, variant="1kb")
    assert found.clips[0].captions == ("1: 1", "1: 0")


def test_msvd_json_and_the_owners_table_agree(read):
    expected = [
        ("-a_b_5_15", "train", ("a dog", "a dog runs")),
        ("c_1_9", "val", ("a cat",)),
        ("d_0_4", "test", ("x",)),
    ]
    found = read("msvd")
    assert table(found) == expected
    rows = [
        *("-a_b,5,15,1,clean,10,English,a dog", "-a_b,5,15,2,clean,10,German,ein Hund"),
        *("c,1,9,1,clean,10,English,a cat", "-a_b,5,15,3,unverified,9,English,a dog runs", "d,0,4,1,clean,2,English,x"),
    ]
    header = "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n"
    corpus = {"captions_msvd.json": None, "MSR Video Description Corpus.csv": header + "\n".join(rows)}
    again = read("msvd", corpus)
    assert table(again) == expected
    assert again.notes == {"descriptions in other languages left out": 1}
    forms = [(form.path, form.start_s, form.end_s) for form in get_source("msvd").alternatives(found.clips[0])]
    assert forms == [("vid1", None, None), ("-a_b", 5.0, 15.0)]


def test_msvd_pickle_is_not_loaded_but_explained(read):
    with pytest.raises(UserError, match=r"is a pickle.*convert it yourself") as error:
        read("msvd", {"captions_msvd.json": None, "raw-captions.pkl": b"cos\nsystem\n(S'false'\ntR."})
    assert "python -c" in str(error.value)


def test_the_way_to_convert_msvds_pickle_works(read, tmp_path):
    import pickle
    import subprocess
    import sys

    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps({"d_0_4": [["a", "big", "dog"], ["x"]]}))
    with pytest.raises(UserError) as error:
        read("msvd", {"captions_msvd.json": None, "raw-captions.pkl": b""})
    program = str(error.value).split('python -c "')[1].rsplit('"', 1)[0]
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "captions_msvd.json").read_text()) == {"d_0_4": ["a big dog", "x"]}


def test_didemo_joins_in_file_order_and_keeps_to_the_list(read):
    found = read("didemo")
    assert table(found) == [("u_2.", "test", ("other",)), ("u_1.mov", "test", ("First. then this",))]
    assert {clip.end_s for clip in found.clips} == {30.0}
    assert found.notes["videos of test_data.json that test_list.txt does not name, left out"] == 1
    with pytest.raises(UserError, match=r"test_list.txt: video 'u_9' has no description"):
        read("didemo", {"test_list.txt": "u_9\n"})


def test_activitynet_odd_windows_are_mended_and_counted(read):
    found = read("activitynet")
    assert table(found) == [("v_a", "train", ("One. Two. Three. Four.",))]
    assert found.clips[0].sentences == (
        Sentence(start_s=0.0, end_s=5.5, text="One."),
        Sentence(start_s=6.0, end_s=9.0, text="Three."),
        Sentence(start_s=12.0, end_s=20.0, text="Two."),
    )
    assert [(span.start_s, span.end_s, span.text) for span in found.clips[0].spans] == [
        *((0.0, 5.5, "One."), (6.0, 9.0, "Three."), (12.0, 20.0, "Two.")),
    ]
    assert {note: n for note, n in found.notes.items() if note.startswith("windows")} == {
        "windows cut at the end of the video": 2,
        "windows whose start and end were swapped": 1,
        "windows without length left out": 1,
    }
    found = read("activitynet", text="sentence")
    assert [(clip.clip_id, clip.start_s, clip.end_s, clip.captions) for clip in found.clips] == [
        ("v_a#0", 0.0, 5.5, ("One.",)),
        ("v_a#1", 12.0, 20.0, ("Two.",)),
        ("v_a#2", 6.0, 9.0, ("Three.",)),
    ]


def test_lsmdc(read):
    found = read("lsmdc")
    assert table(found) == [
        ("m_00.00.01.000-00.00.02.000", "train", ("SOMEONE looks up.", "He smiles.")),
        ("n_00.00.32.161-00.00.35.402", "test", ("A door, opens.",)),
    ]
    assert found.clips[0].meta["start_extracted"] == "00.00.00.500"
    assert found.deviations() == [
        "test clips: the files have 1, the protocol says 1,000",
        "test captions: the files have 1, the protocol says 1,000",
    ]


def test_vatex(read):
    names = [f"-a_b{n}_000012_000022" for n in range(4)]
    found = read("vatex")
    assert [row[:2] for row in table(found)] == [
        *((names[0], "train"), (names[2], "val"), (names[3], "test"), (names[1], "test")),
    ]
    assert found.clips[0].captions[9] == "caption 9"
    assert read("vatex", text="zh").clips[0].captions == ("一只狗",) * 10
    (form,) = get_source("vatex").alternatives(found.clips[0])
    assert (form.path, form.start_s, form.end_s) == ("-a_b0", 12.0, 22.0)
    everything = read("vatex", {"val_list.txt": None}, variant="all")
    assert everything.counted()["val clips"] == 3
    with pytest.raises(UserError, match=r"has no val_list.txt"):
        read("vatex", {"val_list.txt": None})


def test_youcook2(read):
    (clip,) = read("youcook2").clips
    assert (clip.path, clip.start_s, clip.end_s, clip.captions) == ("xH_r", 47.0, 60.0, ("pick, the ends",))
    assert clip.spans == (Span(start_s=47.0, end_s=60.0, text="pick, the ends"),)
    rows = 'end,start,task,text,video_id\n1:40,01:30,226,then wash,xH_r\n60,47,226,"pick, the ends",xH_r\n9,3,1,x,b\n'
    whole, other = read("youcook2", {"validation_youcook.csv": rows}, text="paragraph").clips
    assert (whole.clip_id, whole.start_s, whole.captions) == ("xH_r", None, ("pick, the ends then wash",))
    assert [(span.start_s, span.end_s) for span in whole.spans] == [(47.0, 60.0), (90.0, 100.0)]
    assert (other.clip_id, other.meta) == ("b", {"video": "b", "task": "1"})


# --- speech ---


def test_howto100m_candidates_by_nearness_and_widened_windows(read):
    found = read("howto100m", candidates=3)
    assert [clip.captions for clip in found.clips] == [
        *(("a", "b", "c"), ("b", "c", "d"), ("c", "d", "b"), ("d", "c", "b"), ("e", "d", "c")),
    ]
    # 3 s of speech at 0: no room before it; 1 s at 10: 2 s more on each side
    assert [(clip.start_s, clip.end_s) for clip in found.clips] == [
        *((0.0, 5.0), (4.0, 9.0), (8.0, 13.0), (10.0, 15.0), (40.0, 50.0)),
    ]
    assert [sentence.text for sentence in found.clips[2].sentences] == ["b", "c", "d"]
    alone = read("howto100m", candidates=1)
    assert [clip.captions for clip in alone.clips] == [("a",), ("b",), ("c",), ("d",), ("e",)]
    assert [[s.text for s in clip.sentences] for clip in alone.clips] == [
        *(["a", "b"], ["b"], ["b", "c", "d"], ["c", "d"], ["e"]),
    ]


def test_howto100m_sentences_are_those_that_overlap_the_clip(read):
    speech = {"v": {"start": [0, 1, 30, 36], "end": [33, 2, 31, 37], "text": ["long", "short", "late", "later"]}}
    found = read("howto100m", {"raw_caption.json": json.dumps(speech)})
    assert [(clip.start_s, clip.end_s) for clip in found.clips] == [(0, 33), (0, 5), (28, 33), (34, 39)]
    assert [[s.text for s in clip.sentences] for clip in found.clips] == [
        *(["long", "short", "late"], ["long", "short"], ["long", "late"], ["later"]),
    ]


def test_nearest_in_time_is_the_group_of_shortest_span():
    """The greedy growth, told again in other words: of the two neighbours take the one that keeps the span short."""

    class Piece:
        def __init__(self, start, end):
            self.start_s, self.end_s = start, end

    rng = np.random.default_rng(0)
    for _ in range(50):
        starts = np.cumsum(rng.uniform(0.5, 9, 8))
        pieces = [Piece(s, s + d) for s, d in zip(starts, rng.uniform(0.1, 6, 8), strict=True)]
        for index in range(8):
            group = [index]
            while len(group) < 4:
                spans = {}
                for new in (max(group) + 1, min(group) - 1):
                    if 0 <= new < 8:
                        wide = [*group, new]
                        spans[new] = pieces[max(wide)].end_s - pieces[min(wide)].start_s
                group.append(min(spans, key=spans.__getitem__))
            assert nearest_in_time(pieces, index=index, count=4) == group
    assert sorted(nearest_in_time(pieces, index=3, count=99)) == list(range(8))


def test_howto100m_leaves_out_what_is_not_speech_and_counts_it(read):
    odd = {"v": {"start": [5.0, 1.0, 7.0, 8], "end": [6.0, 1.0, 6.5, 9], "text": ["a", "b", "c", " "]}}
    found = read("howto100m", {"raw_caption.json": json.dumps(odd), "video_ids.txt": "v\nw\n"})
    assert [clip.captions for clip in found.clips] == [("a", "c"), ("c", "a")]
    assert found.notes == {
        "windows without length left out": 1,
        "windows whose start and end were swapped": 1,
        "pieces of speech without text left out": 1,
        "videos of video_ids.txt without speech in raw_caption.json": 1,
    }


# --- actions ---


def test_kinetics(read):
    found = read("kinetics400")
    assert [(clip.clip_id, clip.split, clip.labels) for clip in found.clips] == [
        ("-a_b_000012_000022", "train", ("abseiling",)),
        ("c_000000_000010", "train", ("eating, fast",)),
        ("d_000000_000010", "val", ("zumba",)),
    ]
    assert found.notes == {
        "rows of kinetics_400_train.csv that name a clip again": 1,
        "clips of kinetics_400_test.csv without a label left out": 1,
    }
    assert found.deviations() == ["labels: the files have 3, the protocol says 400"]
    (form,) = get_source("kinetics400").alternatives(found.clips[0])
    assert (form.path, form.start_s, form.end_s) == ("-a_b", 12.0, 22.0)


def test_ucf101_folds(read):
    found = read("ucf101", fold=2)
    assert [(clip.path, clip.split, clip.labels, clip.captions) for clip in found.clips] == [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "train", ("ApplyEyeMakeup",), ("apply eye makeup",)),
        ("YoYo/v_YoYo_g01_c01", "train", ("YoYo",), ("yo yo",)),
        ("YoYo/v_YoYo_g02_c03", "test", ("YoYo",), ("yo yo",)),
    ]
    assert [clip.clip_id for clip in read("ucf101").clips] == ["v_YoYo_g01_c01", "v_YoYo_g09_c01"]
    with pytest.raises(UserError, match=r"trainlist01.txt, line 1: class number is 3, classInd.txt gives 'YoYo' 2"):
        read("ucf101", {"trainlist01.txt": "YoYo/v_YoYo_g01_c01.avi 3\n"})


def test_hmdb51_folds(read):
    found = read("hmdb51")
    assert [(clip.clip_id, clip.split, clip.captions) for clip in found.clips] == [
        ("brush_hair/a_b", "train", ("brush hair",)),
        ("brush_hair/#20_c", "test", ("brush hair",)),
        ("shoot_bow/a_b", "test", ("shoot bow",)),
    ]
    assert found.notes == {"clips that this fold does not use": 1}
    assert [clip.clip_id for clip in read("hmdb51", fold=3).clips] == ["shoot_bow/a_b"]


def test_multiple_choice(read):
    found = read("msrvtt_mc")
    asked = {clip.clip_id: [(q.options, q.correct) for q in clip.questions] for clip in found.clips}
    assert asked == {
        "video7": [(("a dog", "a cat"), 1), (("runs", "sleeps"), 0)],
        "video8": [(("a", "b", "c"), 0)],
    }
    assert {(clip.split, clip.path == clip.clip_id, clip.captions) for clip in found.clips} == {("test", True, ())}
    (clip,) = read("ssv2_mc").clips
    assert (clip.clip_id, clip.split, clip.questions[0].correct) == ("74225", "val", 1)
    lines = '{"clip_name": "video1", "options": ["x", "y"], "answer": 0}\n'
    other = {"msrvtt_mc_test.json": None, "msrvtt_mc_test.jsonl": lines}
    assert read("msrvtt_mc", other).clips[0].questions[0].options == ("x", "y")


def test_options_of_which_several_are_right_become_labels(read):
    found = read("charades_mc")
    assert [(clip.clip_id, clip.path, clip.split, clip.labels) for clip in found.clips] == [
        ("A1", "A1", "test", ("Holding a book", "Sitting")),
        ("B2", "B2", "test", ("Sitting",)),
    ]
    assert found.expected == {"labels": 2} and not found.deviations()


def test_something_v2(read):
    found = read("something_v2")
    assert table(found) == [
        ("7", "val", ("holding a potato next to a cup",)),
        ("9", "test", ("holding something next to something",)),
    ]
    assert {clip.labels for clip in found.clips} == {("Holding something next to something",)}
    assert found.clips[0].meta["placeholders"] == ["a potato", "a cup"]
    assert "test left out" in " ".join(read("something_v2", {"test-answers.csv": None}).notes)


# --- moments ---


def test_charades_sta_mends_moments_that_run_backwards(read):
    found = read("charades_sta")
    assert [(clip.clip_id, clip.captions, clip.meta["moments"]) for clip in found.clips] == [
        ("A1#0", ("person sits.",), [[2.0, 9.5]]),
        ("A1#1", ("person runs.",), [[4.0, 9.0]]),
    ]
    assert [clip.spans for clip in found.clips] == [
        (Span(start_s=2.0, end_s=9.5, text="person sits."),),
        (Span(start_s=4.0, end_s=9.0, text="person runs."),),
    ]
    assert found.notes["windows whose start and end were swapped"] == 1
    assert found.notes["windows without length left out"] == 1


def test_charades_sta_cuts_moments_at_the_end_where_the_lengths_are_there(read):
    lengths = {"Charades_v1_train.csv": 'id,subject,script,length\nA1,X,"a, b",8.25\n'}
    found = read("charades_sta", lengths)
    assert [clip.meta["moments"] for clip in found.clips] == [[[2.0, 8.25]], [[4.0, 8.25]]]
    assert found.notes["windows cut at the end of the video"] == 2


def test_qvhighlights(read):
    found = read("qvhighlights")
    assert [(clip.clip_id, clip.split) for clip in found.clips] == [
        *(("x_y_60.0_210.0#5", "val"), ("z_0.0_126.0#6", "test")),
    ]
    meta = found.clips[0].meta
    assert (meta["moments"], meta["saliency"][2]) == ([[0.0, 4.0], [10.0, 12.0]], [0, 1, 2])
    assert "moments" not in found.clips[1].meta and found.clips[1].spans == ()
    spans = [(0.0, 4.0, "A dog"), (10.0, 12.0, "A dog")]
    assert [(span.start_s, span.end_s, span.text) for span in found.clips[0].spans] == spans
    (whole,) = get_source("qvhighlights").alternatives(found.clips[0])  # cut from the whole video: spans move with it
    assert (whole.path, whole.start_s, whole.end_s) == ("x_y", 60.0, 210.0)
    assert [(span.start_s, span.end_s) for span in whole.spans] == [(60.0, 64.0), (70.0, 72.0)]


# --- summaries and anomalies ---


def test_tvsum_keeps_a_score_of_each_annotator_for_every_half_second(read):
    dog, other = read("tvsum").clips
    assert (dog.clip_id, dog.path, dog.captions, dog.labels, dog.split) == ("-ab", "-ab", ("A dog",), ("PA",), "test")
    assert dog.meta == {"importance": [[1.0, 1.0, 5.0, 5.0], [2.0] * 4]}
    assert (other.captions, other.split) == ((), "train")
    assert other.meta["importance"] == [[7.0, 23.0], [38.0, 54.0]]  # frames 7 and 23 of 31
    assert [clip.split for clip in read("tvsum", fold=2).clips] == ["train", "test"]
    assert annotations_of({"clip_id": "-ab", "duration_s": 2.0, "meta": dog.meta}).mean.tolist() == [0, 0, 1, 1]


def test_summe_keeps_what_annotators_select(read):
    first, second = read("summe").clips
    assert (first.path, first.split, second.path, second.split) == ("Air_Force_One", "test", "Base jumping", "train")
    assert first.meta == {"summaries": [[[0.0, 1.0], [1.5, 2.0]], []]}
    found = annotations_of({"clip_id": "a", "duration_s": 2.0, "meta": first.meta})
    assert found.kept(np.array([0.25, 1.25, 1.75])).tolist() == [[True, False, True], [False] * 3]


def test_the_events_of_ucf_crime_are_spans(read):
    found = read("ucf_crime")
    assert [(clip.clip_id, clip.split, clip.labels) for clip in found.clips] == [
        ("Abuse001_x264", "train", ("Abuse",)),
        ("Normal_Videos001_x264", "train", ("Normal",)),
        ("Abuse028_x264", "test", ("Abuse",)),
        ("Normal_Videos_003_x264", "test", ("Normal",)),
        ("Arson011_x264", "test", ("Arson",)),
    ]
    assert found.clips[2].spans == (Span(start_s=165 / 30, end_s=8.0, label="Abuse"),)
    assert found.clips[3].spans == ()
    assert [(span.start_s, span.end_s) for span in found.clips[4].spans] == [(0.0, 14.0), (23.0, 30.0)]
    film = Film(
        clip_id="a", label="Abuse", abnormal=True, spans=np.array([[165 / 30, 8]]), rate=30, duration_s=20, found=None
    )
    assert film.events == [(166, 240)] and film.truth.sum() == 75
    only = {"Anomaly_Train.txt": None}
    assert read("ucf_crime", only, fps_of_annotation=25.0).clips[0].spans[0].end_s == 240 / 25
