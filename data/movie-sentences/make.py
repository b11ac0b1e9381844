#!/usr/bin/env python3
"""Makes the three files of this folder from the source package of vaderSentiment 0.5.

    pip download --no-deps --no-binary :all: vaderSentiment==0.5
    python3 data/movie-sentences/make.py vaderSentiment-0.5.zip

The rule: sentences whose mean rating is at least 0.5 away from neutral are kept, above as `positive`, below as
`negative`. The SHA-256 of a sentence's UTF-8 bytes, read as one number, modulo 10, says the part: 0 is `test`, 1 is
`validation`, 2 to 9 are `train`. Each file keeps the package's order.
"""

import argparse
import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

ARCHIVE = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

# SHA-256 of the package. Other bytes would make another data set.
PACKAGE = "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a"

# Ratings run from -4 to 4; nearer to 0 than this the raters saw no clear side.
CLEAR = 0.5

TENTHS = {0: "test", 1: "validation"}


def main():
    arguments = argparse.ArgumentParser(description="makes the movie-review sentences from vaderSentiment 0.5")
    arguments.add_argument("package", type=Path, help="vaderSentiment-0.5.zip")
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = arguments.parse_args()

    parts = {"train": [], "validation": [], "test": []}
    for rating, text in sentences(arguments.package):
        if abs(rating) >= CLEAR:
            digest = int(hashlib.sha256(text.encode()).hexdigest(), 16)
            parts[TENTHS.get(digest % 10, "train")].append(("positive" if rating > 0 else "negative", text))
    for part, rows in parts.items():
        write(arguments.out / f"{part}.tsv.gz", rows)


def sentences(package):
    """Mean rating and text of each sentence, in the package's order."""
    if hashlib.sha256(package.read_bytes()).hexdigest() != PACKAGE:
        raise SystemExit(f"{package} is not the source package of vaderSentiment 0.5")
    with zipfile.ZipFile(package) as outer, tarfile.open(fileobj=io.BytesIO(outer.read(ARCHIVE))) as inner:
        content = inner.extractfile(RATINGS).read().decode("utf-8")
    for line in content.split("\r\n"):
        _, rating, text = line.split("\t")
        yield float(rating), text


def write(path, rows):
    content = "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows)
    # No name and no time in the gzip header: the same input gives the same bytes.
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(content.encode())
    positive = sum(label == "positive" for label, _ in rows)
    print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}: {len(rows)} sentences, {positive} positive")


if __name__ == "__main__":
    main()
