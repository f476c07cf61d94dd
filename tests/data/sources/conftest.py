"""Small annotation files in the documented format of each benchmark."""

import io
import json

import h5py
import numpy as np
import pytest
from scipy.io import savemat

_CAPTIONS = [f"caption {n}" for n in range(10)]
_VATEX = [{"videoID": f"-a_b{n}_000012_000022", "enCap": _CAPTIONS, "chCap": ["一只狗"] * 10} for n in range(4)]
_MSRVTT = {
    "info": {},
    "videos": [
        {"video_id": f"video{n}", "split": ("train", "validate", "test")[n % 3], "start time": 1.0, "end time": 9.5}
        for n in range(6)
    ],
    "sentences": [{"video_id": f"video{n}", "caption": f"{n}: {k}", "sen_id": k} for k in (1, 0) for n in range(6)],
}
_SOMETHING = {
    "id": "7",
    "label": "holding a potato next to a cup",
    "template": "Holding [something] next to [something]",
    "placeholders": ["a potato", "a cup"],
}


def _tvsum(**changed):
    """A file of MATLAB's version 7.3 with two videos of 60 and 31 frames and two annotators, as TVSum's."""
    videos = [
        {
            "video": "-ab",
            "title": "A dog",
            "category": "PA",
            "nframes": 60.0,
            "user_anno": [[1] * 30 + [5] * 30, [2] * 60],
        },
        {"video": "cd", "title": "", "category": "VT", "nframes": 31.0, "user_anno": np.arange(62).reshape(2, 31)},
    ]
    videos[0] |= changed
    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        for name in videos[0]:
            references = made.create_dataset(f"tvsum50/{name}", (2, 1), dtype=h5py.ref_dtype)
            for number, video in enumerate(videos):
                value = video[name]
                if isinstance(value, str):  # an empty text is stored by its size
                    value = np.array([[ord(one)] for one in value], np.uint16) if value else np.zeros(2, np.uint64)
                else:
                    value = np.atleast_2d(np.asarray(value, np.float64))
                references[number, 0] = made.create_dataset(f"#refs#/{name}{number}", data=value).ref
    return file.getvalue()


def _summe(**changed):
    """A file of SumMe: four frames at 2 frames/s, two annotators."""
    file = io.BytesIO()
    savemat(file, {"user_score": np.array([[1, 0], [2, 0], [0, 0], [3, 0]]), "FPS": 2.0, "nFrames": 4} | changed)
    return file.getvalue()


FILES = {
    "msrvtt": {
        "MSRVTT_JSFUSION_test.csv": "key,vid_key,video_id,sentence\nret0,msr5,video5,a dog runs\n",
        "MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo3\n",
        "MSRVTT_train.7k.csv": "video_id\nvideo3\n",
        "MSRVTT_data.json": json.dumps(_MSRVTT),
        "train_list_miech.txt": "video1\nvideo2\n",
        "test_list_miech.txt": "video4\n",
    },
    "msvd": {
        "train_list.txt": "-a_b_5_15\n",
        "val_list.txt": "c_1_9\n",
        "test_list.txt": "d_0_4\n",
        "captions_msvd.json": json.dumps(
            {"-a_b_5_15": ["a dog", "a dog runs"], "c_1_9": [["a", "cat"]], "d_0_4": ["x"]}
        ),
        "youtube_mapping.txt": "-a_b_5_15 vid1\n",
    },
    "didemo": {
        "test_data.json": json.dumps(
            [
                {"video": "u_1.mov", "description": "First.", "times": [[0, 0]], "annotation_id": 1},
                {"video": "u_2.", "description": "other", "times": [[0, 1]], "annotation_id": 2},
                {"video": "u_1.mov", "description": "then this", "times": [[3, 4]], "annotation_id": 3},
                {"video": "u_3.avi", "description": "not on the list", "times": [[3, 4]], "annotation_id": 4},
            ]
        ),
        "test_list.txt": "u_2.\nu_1.mov\n",
    },
    "activitynet": {
        "train.json": json.dumps(
            {
                "v_a": {
                    "duration": 20.0,
                    "timestamps": [[0, 5.5], [12.0, 25.0], [9.0, 6.0], [20.0, 22.0]],
                    "sentences": ["One.", " Two.", "Three.", "Four."],
                }
            }
        )
    },
    "lsmdc": {
        "LSMDC16_annos_training.csv": "m_00.00.01.000-00.00.02.000\t00.00.01.000\t00.00.02.000\t00.00.00.500\t"
        "00.00.02.500\tSOMEONE looks up.\n" * 1 + "m_00.00.01.000-00.00.02.000\t1\t2\t3\t4\tHe smiles.\n",
        "LSMDC16_challenge_1000_publictect.csv": "n_00.00.32.161-00.00.35.402\t1\t2\t3\t4\tA door, opens.\n",
    },
    "vatex": {
        "vatex_training_v1.0.json": json.dumps(_VATEX[:1]),
        "vatex_validation_v1.0.json": json.dumps(_VATEX[1:]),
        "val_list.txt": "-a_b2_000012_000022\n",
        "test_list.txt": "-a_b3_000012_000022\n-a_b1_000012_000022\n",
    },
    "youcook2": {"validation_youcook.csv": 'end,start,task,text,video_id\n60,47,226,"pick, the ends",xH_r\n'},
    "howto100m": {
        "raw_caption.json": json.dumps(
            {
                "v_1": {
                    "start": [0.0, 4.0, 10.0, 11.0, 40.0],
                    "end": [3.0, 9.0, 11.0, 14.0, 50.0],
                    "text": ["a", "b", "c", "d", "e"],
                }
            }
        )
    },
    "kinetics400": {
        "kinetics_400_train.csv": "label,youtube_id,time_start,time_end,split,is_cc\n"
        'abseiling,-a_b,12,22,train,0\n"eating, fast",c,0,10,train,1\nabseiling,-a_b,12,22,train,0\n',
        "kinetics_400_val.csv": "label,youtube_id,time_start,time_end,split,is_cc\nzumba,d,0,10,val,0\n",
        "kinetics_400_test.csv": "youtube_id,time_start,time_end,split\ne,0,10,test\n",
    },
    "ucf101": {
        "classInd.txt": "1 ApplyEyeMakeup\r\n2 YoYo\r\n",
        "trainlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nYoYo/v_YoYo_g01_c01.avi 2\n",
        "testlist02.txt": "YoYo/v_YoYo_g02_c03.avi\n",
        "trainlist01.txt": "YoYo/v_YoYo_g01_c01.avi 2\n",
        "testlist01.txt": "YoYo/v_YoYo_g09_c01.avi\n",
    },
    "hmdb51": {
        "brush_hair_test_split1.txt": "a_b.avi 1 \n#20_c.avi 2 \nd.avi 0 \n",
        "shoot_bow_test_split1.txt": "a_b.avi 2 \n",
        "shoot_bow_test_split3.txt": "a_b.avi 1 \n",
    },
    "something_v2": {
        "something-something-v2-labels.json": json.dumps({"Holding something next to something": "0"}),
        "something-something-v2-validation.json": json.dumps([_SOMETHING]),
        "something-something-v2-test.json": json.dumps([{"id": "9"}]),
        "test-answers.csv": "9;Holding something next to something\n",
    },
    "msrvtt_mc": {
        "msrvtt_mc_test.json": json.dumps(
            [
                {"image": "video7.mp4", "caption": ["a dog", "a cat"], "answer": 1},
                {"image": "TestVideo/video8.mp4", "caption": ["a", "b", "c"], "answer": 0},
                {"image": "video7.mp4", "caption": ["runs", "sleeps"], "answer": 0},
            ]
        )
    },
    "ssv2_mc": {"val.jsonl": '{"clip_name": "74225.webm", "options": ["Moving it", "Holding it"], "answer": "1"}\n'},
    "charades_mc": {
        "charades_mc_test.json": json.dumps(
            [
                {"image": "A1.mp4", "option": ["Holding a book", "Sitting"], "answer": [1, 1]},
                {"video": "B2.mp4", "option": ["Holding a book", "Sitting"], "answer": [0, 1]},
            ]
        )
    },
    "msrvtt_qa": {
        "train_qa.json": '[{"answer": "dog", "category_id": 14, "id": 0, "question": "what runs?", "video_id": 7},'
        ' {"answer": "park", "category_id": 14, "id": 1, "question": "where is it?", "video_id": 7}]',
        "test_qa.json": '[{"answer": "cat", "category_id": 1, "id": 9, "question": "what sleeps?", "video_id": 8}]',
    },
    "msvd_qa": {
        "val_qa.json": '[{"answer": "dog", "id": 3, "question": "what runs?", "video_id": 1}]',
        "youtube_mapping.txt": "-a_b_5_15 vid1\n",
    },
    "activitynet_qa": {
        "test_q.json": '[{"video_name": "-a_b", "question": "is it a dog", "question_id": "v_-a_b_1"}]',
        "test_a.json": '[{"answer": "yes", "type": 3, "question_id": "v_-a_b_1"}]',
    },
    "next_qa": {
        "val.csv": "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
        '4010,10,6,4,"why, then",2,1,CW,a,b,c,d,e\n4010,10,6,4,what next,e,2,TN,a,b,c,d,e\n',
        "map_vid_vidorID.json": '{"4010": "1164/3238"}',
    },
    "coco": {
        "dataset_coco.json": '{"images": [{"filepath": "val2014", "sentids": [1, 2],'
        ' "filename": "COCO_val2014_000000000042.jpg", "imgid": 0, "split": "restval",'
        ' "sentences": [{"tokens": ["a", "dog"], "raw": "A dog.", "imgid": 0,'
        ' "sentid": 1}, {"tokens": ["dog"], "raw": "dog", "imgid": 0, "sentid": 2}],'
        ' "cocoid": 42}], "dataset": "coco"}',
        "captions_val2017.json": '{"images": [{"id": 42, "file_name": "000000000042.jpg"}],'
        ' "annotations": [{"id": 3, "image_id": 42, "caption": "A dog."}]}',
    },
    "flickr30k": {
        "dataset_flickr30k.json": '{"images": [{"sentids": [0], "imgid": 0, "filename": "1.jpg", "split": "test",'
        ' "sentences": [{"tokens": ["two"], "raw": "Two men.", "imgid": 0, "sentid": 0}]}], "dataset": "flickr30k"}',
    },
    "tvsum": {"ydata-tvsum50.mat": _tvsum()},
    "summe": {"Air_Force_One.mat": _summe(), "Base jumping.mat": _summe()},
    "ucf_crime": {
        "Temporal_Anomaly_Annotation_for_Testing_Videos.txt": "Abuse028_x264.mp4  Abuse  166  240  -1  -1  \n"
        "Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \nArson011_x264.mp4  Arson  0  420  691  900\n",
        "Anomaly_Train.txt": "Abuse/Abuse001_x264.mp4\nTraining_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4\n",
    },
    "charades_sta": {"charades_sta_train.txt": "A1 2.0 9.5##person sits.\nA1 9.0 4.0##person runs.\nA1 3 3##none\n"},
    "qvhighlights": {
        "highlight_val_release.jsonl": json.dumps(
            {
                "qid": 5,
                "query": "A dog",
                "duration": 150,
                "vid": "x_y_60.0_210.0",
                "relevant_windows": [[0, 4], [10, 12]],
                "relevant_clip_ids": [0, 1, 5],
                "saliency_scores": [[1, 2, 3], [4, 4, 4], [0, 1, 2]],
            }
        ),
        "highlight_test_release.jsonl": '{"qid": 6, "query": "A cat", "duration": 126, "vid": "z_0.0_126.0"}\n',
    },
}
_OWNERS = {
    "images": [{"id": 9, "file_name": "000000000009.jpg"}],
    "annotations": [{"id": n, "image_id": 9, "caption": f"a dog, {n}"} for n in (2, 1)],
}
_KARPATHY = [
    {"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": "a dog"}, {"raw": "a cat"}]}
    for n, split in enumerate(("train", "val", "test"))
]
FILES["coco"] = {
    "dataset_coco.json": json.dumps({"images": [{**_KARPATHY[2], "filepath": "val2014", "cocoid": 2}]}),
    "captions_train2014.json": json.dumps(_OWNERS),
    "captions_val2017.json": json.dumps(_OWNERS),
}
FILES["flickr30k"] = {"dataset_flickr30k.json": json.dumps({"images": _KARPATHY})}
FILES["kinetics600"] = FILES["kinetics700"] = FILES["kinetics400"]


@pytest.fixture
def annotations(tmp_path):
    """Write the files of a benchmark to a folder; `changed` replaces the text of files, None leaves one out."""

    def write(name, changed=None):
        folder = tmp_path / "annotations"
        folder.mkdir(exist_ok=True)
        for file, text in {**FILES[name], **(changed or {})}.items():
            if text is None:
                (folder / file).unlink(missing_ok=True)
            else:
                (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return write


@pytest.fixture(scope="session")
def matlab():
    """Functions that write the MATLAB files of TVSum and SumMe with other values."""
    return {"tvsum": _tvsum, "summe": _summe}


@pytest.fixture(scope="session")
def benchmark_files():
    """The texts of the files by benchmark and name."""
    return FILES


@pytest.fixture
def read(annotations):
    """Reads a benchmark's sample, with some of its files changed."""
    from twinreel.data.sources.registry import get_source

    def reader(name, changed=None, **options):
        source = get_source(name)
        return source.read(annotations(name, changed), **source.settings(options))

    return reader
