"""File names and format versions of a prepared folder. Loads nothing."""

NAME = "twinreel_clips"  # of the TFDS data set, and of the folder with the shards
RECORDS_VERSION = "2.0.0"  # of a record
FORMAT = 4  # of the folder
# What a build leaves, besides prepare.json, which is written last.
INPUTS = "inputs.jsonl"  # the files that the records were made of, and what stands for their contents
INDEX = "index"  # the columns of clips.jsonl, see index/columns.py
RESULTS = (NAME, INDEX, "clips.jsonl", "rejects.jsonl", "duplicates.jsonl", INPUTS)
BUILDING = ".building"  # the shards are made here; its presence marks a build that has not ended
SETTINGS = "build.json"  # in BUILDING: the settings of the build
NAMES = "names.json"  # in BUILDING: where the finished shards have been moved to
