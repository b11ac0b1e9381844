#!/usr/bin/env python3
"""Makes English-German pairs from the translated package descriptions of Debian 12 (bookworm).

On a Debian 12 machine or container; the first command fetches the two indices into a folder of its own and changes
nothing else on the machine:

    mkdir -p lists/partial
    apt-get update -o Dir::State::Lists=$PWD/lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \\
        -o Acquire::Languages=en,de -o Acquire::GzipIndexes=false
    python3 scripts/data/english-german.py lists --out english-german

Writes {train,validation,test}.tsv.gz with the columns `english` and `german`. The rule:

- Descriptions pair up by package and by the digest of the English text, which the index carries.
- A pair of descriptions gives a pair of summaries. Paragraphs pair up where both sides have as many; of those, list
  items (lines that start with `-`, `*`, `+`, `o` or a bullet) and then sentences, again where both sides have as many.
- Pairs with nothing to translate (equal, or without a letter on one side) and pairs that were seen before are dropped.
- The SHA-256 of the English text's UTF-8 bytes, read as one number, modulo 20, says the part: 0 is `test`, 1
  `validation`, the rest `train`. One English text never is in two parts, with whichever translations it has.
"""

import argparse
import gzip
import hashlib
import re
from pathlib import Path

# SHA-256 of the indices of Debian 12.15, unpacked. Another point release may give other pairs.
INDICES = {
    "en": "62f59c3cdca9786e4f7adf9002f9f5729a684adcb4667e58e448dec9b5a46c7f",
    "de": "adac331fc51f9a00c1b4120b4ac87423be2b1f1615d4f288c7cbc2d5258c0650",
}

TWENTIETHS = {0: "test", 1: "validation"}

ITEM = re.compile(r"\s*[-*+o•]\s+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ\"(])")
LETTER = re.compile(r"[^\W\d_]")


def main():
    arguments = argparse.ArgumentParser(description="makes English-German pairs from Debian's package descriptions")
    arguments.add_argument("lists", type=Path, help="apt's folder of indices")
    arguments.add_argument("--out", type=Path, default=Path("english-german"))
    arguments.add_argument("--any-release", action="store_true", help="take other indices than those of Debian 12.15")
    arguments = arguments.parse_args()

    english, german = (descriptions(index(arguments, language), language) for language in INDICES)
    parts = {"train": {}, "validation": {}, "test": {}}
    for key in sorted(english.keys() & german.keys()):
        for pair in pairs(english[key], german[key]):
            digest = int(hashlib.sha256(pair[0].encode()).hexdigest(), 16)
            # A dictionary keeps the first of equal pairs, and the order.
            parts[TWENTIETHS.get(digest % 20, "train")][pair] = None
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        write(arguments.out / f"{part}.tsv.gz", rows)


def index(arguments, language):
    """The text of one language's index of the release's main part."""
    found = sorted(arguments.lists.glob(f"*_dists_bookworm_main_i18n_Translation-{language}"))
    if len(found) != 1:
        raise SystemExit(f"{arguments.lists} holds {len(found)} files *_dists_bookworm_main_i18n_Translation-{language}")
    content = found[0].read_bytes()
    if hashlib.sha256(content).hexdigest() != INDICES[language] and not arguments.any_release:
        raise SystemExit(f"{found[0]} is not that of Debian 12.15: take --any-release to make other pairs from it")
    return content.decode("utf-8")


def descriptions(content, language):
    """Summary and paragraphs of each description by package and digest; paragraphs are lists of lines."""
    found = {}
    for entry in content.split("\n\n"):
        fields, lines = {}, []
        for line in entry.splitlines():
            if line.startswith(" "):
                lines.append(line[1:])
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            key = fields["Package"], fields["Description-md5"]
            found[key] = fields[f"Description-{language}"], paragraphs(lines)
    return found


def paragraphs(lines):
    found = [[]]
    for line in lines:
        if line.strip() == ".":
            found.append([])
        else:
            found[-1].append(line)
    return [paragraph for paragraph in found if paragraph]


def pairs(english, german):
    (summary, paragraphs), (summary_de, paragraphs_de) = english, german
    found = [(summary, summary_de)]
    for paragraph, paragraph_de in aligned(paragraphs, paragraphs_de):
        for item, item_de in aligned(items(paragraph), items(paragraph_de)):
            found += aligned(SENTENCE_END.split(item), SENTENCE_END.split(item_de))
    return [pair for pair in found if pair[0] != pair[1] and all(map(LETTER.search, pair))]


def aligned(these, those):
    return list(zip(these, those)) if len(these) == len(those) else []


def items(paragraph):
    """A paragraph's list items without their marks, each on one line; a paragraph without marks is one item."""
    found = []
    for line in paragraph:
        mark = ITEM.match(line)
        if mark or not found:
            found.append([])
        found[-1].append(line[mark.end() :] if mark else line)
    return [" ".join(" ".join(lines).split()) for lines in found]


def write(path, rows):
    content = "english\tgerman\n" + "".join(f"{english}\t{german}\n" for english, german in rows)
    # No name and no time in the gzip header: the same input gives the same bytes.
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(content.encode())
    print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}: {len(rows)} pairs")


if __name__ == "__main__":
    main()
