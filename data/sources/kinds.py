"""The kinds of files in a source, by the ends of their names."""

import posixpath

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "asf", "avi", "f4v", "flv", "gif", "h264", "hevc", "ivf", "m2ts", "m2v", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "mxf", "nut", "ogm", "ogv", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
PICTURE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))  # a picture is a clip of one frame
TEXT_SUFFIXES = (".txt", ".cap", ".cls", ".json")  # texts of a clip: captions (two names), label, several fields
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
TABLES = (".csv", ".tsv", ".parquet")
LISTS = (*TABLES, ".jsonl", ".ndjson")  # read as a source
UNREAD_LISTS = (".arrow", ".xlsx", ".feather")

_SYSTEM_NAMES = frozenset(("desktop.ini", "thumbs.db"))
SYSTEM_FOLDERS = frozenset(("$recycle.bin", "@eadir", "__macosx", "lost+found", "system volume information"))
_LEFT_OUT = {  # what it is and what to do with it -> the ends of its name
    "subtitle files left out (KEY.srt, KEY.vtt, KEY.en.srt are read, one for each KEY)": (
        *(".ass", ".json3", ".lrc", ".sbv", ".srt", ".srv3", ".ssa", ".sub", ".ttml", ".vtt"),
    ),
    "sound in files of its own left out (what is in the video is used)": (
        *(".aac", ".flac", ".m4a", ".mka", ".mp3", ".ogg", ".opus", ".wav", ".wma"),
    ),
    "unfinished downloads left out (fetch them again)": (
        *(".aria2", ".crdownload", ".download", ".part", ".tmp", ".ytdl"),
    ),
    "lists left out (to use a list, give it as the source)": (*LISTS, *UNREAD_LISTS),
    "archives left out (give .tar archives as the source, unpack others)": (*ARCHIVES, ".7z", ".gz", ".rar", ".zip"),
    "arrays of a kind that is not read left out (save features as KEY.NAME.npy)": (
        *(".h5", ".hdf5", ".npz", ".pkl", ".pt", ".pth", ".safetensors"),
    ),
    "features left out (KEY.npy and KEY.NAME.npy are read, NAME of lower case letters, digits and _)": (".npy",),
    "texts with a further name left out (KEY.txt, KEY.cap, KEY.cls and KEY.json are read)": TEXT_SUFFIXES,
    "pictures of a kind that is not read left out (save them as .png)": (
        *(".avif", ".heic", ".jfif", ".jp2", ".tif", ".tiff"),
    ),
}


def suffix_of(name: str) -> str:
    """Return the last suffix of a path in lower case, with its dot; "" for none."""
    return posixpath.splitext(name)[1].lower()


def is_hidden(name: str) -> bool:
    """Whether the last part of a path is one that systems write for themselves: `.name`, `Thumbs.db`."""
    last = name.rpartition("/")[2].lower()
    return last.startswith(".") or last in _SYSTEM_NAMES


def left_out(name: str) -> str:
    """Return the note for a file that no clip uses: what it is, and how it could be used."""
    lower = name.lower()
    for note, ends in _LEFT_OUT.items():
        if lower.endswith(ends):
            return note
    suffix = suffix_of(name)
    return f"files of the unknown kind {suffix[:20]} left out" if suffix else "files without a suffix left out"
