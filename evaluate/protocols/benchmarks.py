"""Test protocols of the public retrieval benchmarks, as data: one entry each, and nothing else differs between them.

Numbers of videos and texts, split and ids are those that papers measure on; frames and text lengths are those of the
code that papers cite, which a model of its own input may differ from: the report then says so.
"""

import dataclasses
from collections.abc import Mapping

from ...base.errors import unknown
from .benchmark_entry import Entry

EACH_CAPTION = "each caption is a query"
PARAGRAPH = "sentences of a video joined to one paragraph"
ONE_TO_ONE = "one caption per video: both readings agree"
TWO_READINGS = (
    "among videos (CLIP4Clip, InternVideo1) or among captions (Frozen, Collaborative Experts, InternVideo2, PE, "
    "CLIP_benchmark, MTEB); both are reported"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark(Entry):
    """The protocol of a retrieval benchmark.

    Attributes:
      videos: number of videos.
      texts: number of texts.
      text_aggregation: how a video's captions become queries.
      captions: "all" captions of a prepared clip, or its "first".
      video_to_text: what papers mean by video to text.
      text_length: texts are cut there, by the code that does so; in words or tokens, as its name says.
      prompt: template of the texts; "{}" = as they are.
    """

    task: str = "retrieval"
    videos: int
    texts: int
    text_aggregation: str = EACH_CAPTION
    captions: str = "all"
    video_to_text: str = ONE_TO_ONE
    frames: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"CLIP4Clip": 12, "InternVideo2": 8})
    text_length: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"CLIP4Clip (words)": 32})
    prompt: str = "{}"


_PARAGRAPH_LENGTH = {"CLIP4Clip (words)": 64, "InternVideo2 (tokens)": 150}

_ENTRIES = (
    Benchmark(
        name="msrvtt-1ka",
        title="MSR-VTT 1k-A: the 1,000 pairs of JSFusion",
        source="msrvtt",
        options={"variant": "1ka"},
        videos=1000,
        texts=1000,
        ids_sha256="64462f74c95235d602a0a231e7f2125640ebbf3de0e226fbdd5e64f621c46d83",
        citation="Yu, Kim, Kim: A Joint Sequence Fusion Model for Video Question Answering and Retrieval, ECCV 2018",
        notes="995 of the 1,000 captions are distinct. PE counts equal captions as right; see the any-match rows.",
    ),
    Benchmark(
        name="msrvtt-full",
        title="MSR-VTT, the owners' test split with all captions",
        source="msrvtt",
        options={"variant": "full"},
        videos=2990,
        texts=59798,
        ids_sha256=None,
        video_to_text=TWO_READINGS,
        citation="Xu, Mei, Yao, Rui: MSR-VTT: A Large Video Description Dataset, CVPR 2016",
        notes="20 captions per video; two videos have 19.",
    ),
    Benchmark(
        name="msvd",
        title="MSVD, test split",
        source="msvd",
        videos=670,
        texts=27763,
        ids_sha256="95eacd1fddb1d88cd7144267913ef02d0ecb8cc94a88bc484035433a2d8f9c7a",
        video_to_text=TWO_READINGS,
        citation="Chen, Dolan: Collecting Highly Parallel Data for Paraphrase Evaluation, ACL 2011",
        notes="The owners' CSV has more captions than the lists that papers use.",
    ),
    Benchmark(
        name="didemo",
        title="DiDeMo, paragraphs, the 1,004 test videos of Collaborative Experts",
        source="didemo",
        videos=1004,
        texts=1004,
        ids_sha256="371f608f2c4984caa794ccfa40276069e209c2a0ea26a78acdad0613f4f61a2c",
        text_aggregation=PARAGRAPH,
        frames={"CLIP4Clip": 64, "InternVideo2": 8},
        text_length={"CLIP4Clip (words)": 64},
        citation="Hendricks et al.: Localizing Moments in Video with Natural Language, ICCV 2017; test list of Liu et "
        "al.: Use What You Have, BMVC 2019",
        notes="First 30 s of each video. Some papers use the first description only, or 913 to 1,003 videos.",
    ),
    Benchmark(
        name="activitynet",
        title="ActivityNet Captions, paragraphs, val_1",
        source="activitynet",
        options={"text": "paragraph"},
        split="val_1",
        videos=4917,
        texts=4917,
        ids_sha256="9b39bfbdf6a256a62addb0c54eb1bd56f487300f02e10df6c4bf886dab720e9d",
        text_aggregation=PARAGRAPH,
        frames={"CLIP4Clip": 64, "PE": 32, "InternVideo2": 8},
        text_length=_PARAGRAPH_LENGTH,
        citation="Krishna et al.: Dense-Captioning Events in Videos, ICCV 2017",
        notes="Mean 48 words, at most 332; one paragraph in ten has more than 77 words, the context of CLIP.",
    ),
    Benchmark(
        name="lsmdc",
        title="LSMDC 2016, the 1,000 clips of the public test",
        source="lsmdc",
        videos=1000,
        texts=1000,
        ids_sha256=None,
        citation="Rohrbach et al.: Movie Description, IJCV 2017",
        notes="The owners give the list on request, so its ids are not checked.",
    ),
    Benchmark(
        name="vatex",
        title="VATEX, English, the 1,500 test clips of HGR",
        source="vatex",
        options={"variant": "hgr", "text": "en"},
        videos=1500,
        texts=15000,
        ids_sha256=None,
        video_to_text=TWO_READINGS,
        citation="Wang et al.: VATEX, ICCV 2019; split of Chen et al.: Fine-grained Video-Text Retrieval with "
        "Hierarchical Graph Reasoning, CVPR 2020",
        notes="Other papers use all 3,000 validation clips or what is still online of them: compare subset ids.",
    ),
    Benchmark(
        name="youcook2",
        title="YouCook2, clips of the validation videos, list of MIL-NCE",
        source="youcook2",
        options={"text": "sentence"},
        split="val",
        videos=3350,
        texts=3350,
        ids_sha256="f17d686e6b6eb8eecda5015c00a77b668ce39f8d899d6c73dc901025f6997f5e",
        frames={},
        text_length={},
        citation="Zhou, Xu, Corso: Towards Automatic Learning of Procedures from Web Instructional Videos, AAAI 2018; "
        "list of Miech et al.: End-to-End Learning of Visual Representations from Uncurated Instructional Videos, "
        "CVPR 2020",
        notes="Papers differ in frames and text length. One window has two sentences, kept as two clips.",
    ),
)

BENCHMARKS: dict[str, Benchmark] = {entry.name: entry for entry in _ENTRIES}
"""All entries by name."""


def get_benchmark(name: str) -> Benchmark:
    """Return an entry.

    Raises:
      UserError: no benchmark has that name; the nearest is named.
    """
    if name not in BENCHMARKS:
        raise unknown("benchmark (--benchmark; see `twinreel evaluate --list`)", name, BENCHMARKS)
    return BENCHMARKS[name]
