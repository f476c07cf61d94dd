"""What is where in a prepared folder, and the versions; loads nothing."""

NAME = "twinreel_clips"  # of the TFDS data set, and the folder with the shards
RECORDS_VERSION = "2.0.0"  # of a record
FORMAT = 3  # of the folder
# What a build leaves, beside prepare.json, which vouches for it.
RESULTS = (NAME, "clips.jsonl", "rejects.jsonl", "duplicates.jsonl")
BUILDING = ".building"  # where the shards are made: its presence tells a build that is not at its end
SETTINGS = "build.json"  # in there: what the build was begun with
NAMES = "names.json"  # in there: where the finished shards have been moved to
