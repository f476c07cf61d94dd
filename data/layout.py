"""File names and format versions of a prepared folder. Loads nothing."""

NAME = "twinreel_clips"  # of the TFDS data set, and of the folder with the shards; of the nth appended one, NAME_n
RECORDS_VERSION = "2.0.0"  # of a record
FORMAT = 4  # of the folder
# What a build leaves, besides prepare.json, which is written last.
INPUTS = "inputs.jsonl"  # the files that the records were made of, and what stands for their contents
INDEX = "index"  # the columns of clips.jsonl, see index/columns.py
RESULTS = (NAME, INDEX, "clips.jsonl", "rejects.jsonl", "duplicates.jsonl", INPUTS)
BUILDING = ".building"  # the shards are made here; its presence marks a build that has not ended
SETTINGS = "build.json"  # in BUILDING: the settings of the build
NAMES = "names.json"  # in BUILDING: where the finished shards have been moved to
ELSEWHERE = ".elsewhere.json"  # shards that lie in an object store already, see prepare/far_build.py
APPENDING = ".appending"  # what is to be appended is prepared and joined here; its presence marks an unfinished append


def home_of(shard: str) -> str:
    """Return the folder of a shard within the prepared folder: that of the TFDS data set which its name begins with."""
    return f"{shard.partition('-')[0]}/{RECORDS_VERSION}"
