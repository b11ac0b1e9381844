#!/usr/bin/env python3
"""Makes the six files of this folder from the Debian package `dataset-fashion-mnist`.

    apt-get install dataset-fashion-mnist
    python3 data/fashion-mnist/make.py

The rule: within each class, in the package's order, the first 500 images of its train file are `train`, the next 100
are `validation`, and the first 200 of its test file are `test`. Each file keeps the package's order. No two of the
package's 70,000 images are equal, so the three parts share none.
"""

import argparse
import gzip
import hashlib
import struct
from pathlib import Path

CLASSES = 10
PIXELS = 28 * 28

# SHA-256 of the package's files, version 0.0~git20200523.55506a9-1. Other bytes would make another data set.
SOURCES = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}

# Part: the package's file, and which images of each class, counted within the class.
PARTS = {
    "train": ("train", range(0, 500)),
    "validation": ("train", range(500, 600)),
    "test": ("t10k", range(0, 200)),
}


def main():
    arguments = argparse.ArgumentParser(description="makes the Fashion-MNIST subset from the Debian package")
    arguments.add_argument("--source", type=Path, default="/usr/share/datasets/fashion-mnist")
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = arguments.parse_args()

    for part, (origin, within_class) in PARTS.items():
        images = body(arguments.source / f"{origin}-images-idx3-ubyte.gz", header_bytes=16)
        labels = body(arguments.source / f"{origin}-labels-idx1-ubyte.gz", header_bytes=8)
        taken = choose(labels, within_class)
        pixels = b"".join(images[PIXELS * at : PIXELS * (at + 1)] for at in taken)
        write(arguments.out / f"{part}-images-idx3-ubyte.gz", (len(taken), 28, 28), pixels)
        write(arguments.out / f"{part}-labels-idx1-ubyte.gz", (len(taken),), bytes(labels[at] for at in taken))


def body(path, header_bytes):
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != SOURCES[path.name]:
        raise SystemExit(f"{path} is not the file of package version 0.0~git20200523.55506a9-1")
    return gzip.decompress(packed)[header_bytes:]


def choose(labels, within_class):
    """Positions whose rank within their own class lies in `within_class`."""
    seen = [0] * CLASSES
    taken = []
    for at, label in enumerate(labels):
        if seen[label] in within_class:
            taken.append(at)
        seen[label] += 1
    return taken


def write(path, shape, content):
    """IDX: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension big-endian, the bytes."""
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    # No name and no time in the gzip header: the same input gives the same bytes.
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(header + content)
    print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")


if __name__ == "__main__":
    main()
