#!/usr/bin/env python3
"""Makes the pictures that the tests of image folders read, and `images.json` with their pixels as Pillow reads them.

    python -m venv venv && venv/bin/pip install pillow==13.0.0
    venv/bin/python crates/evaluator/tests/references/images.py
"""

import json
import struct
import zlib
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 19, 13
FOLDER = Path(__file__).parent / "images"


def main():
    FOLDER.mkdir(exist_ok=True)
    # Slow changes, as photographs have them; JPEG keeps those nearly.
    pixels = [(x * 13, y * 19, (x + y) * 8) for y in range(HEIGHT) for x in range(WIDTH)]
    colour = Image.new("RGB", (WIDTH, HEIGHT))
    colour.putdata(pixels)
    opacity = Image.linear_gradient("L").resize((WIDTH, HEIGHT))

    save(colour, "colour.png")
    save(colour.convert("L"), "grey.png")
    transparent = colour.copy()
    transparent.putalpha(opacity)
    save(transparent, "transparent.png")
    save(transparent.convert("LA"), "grey-transparent.png")
    save(colour.quantize(16), "palette.png")
    save(colour.quantize(16), "palette-transparent.png", transparency=3)
    save(colour.convert("1"), "two-colours.png")
    (FOLDER / "sixteen-bits.png").write_bytes(sixteen_bits(pixels))
    save(colour, "colour.jpg", quality=90, subsampling=0)
    save(colour, "subsampled.jpg", quality=90, subsampling=2)
    save(colour, "progressive.jpg", quality=90, subsampling=0, progressive=True)
    save(colour.convert("L"), "grey.jpg", quality=90)
    save(colour.convert("CMYK"), "cmyk.jpg", quality=90)

    references = {path.name: list(Image.open(path).convert("RGB").tobytes()) for path in sorted(FOLDER.iterdir())}
    text = json.dumps({"width": WIDTH, "height": HEIGHT, "bytes": references}, separators=(",", ":"))
    (FOLDER.parent / "images.json").write_text(text.replace('],"', '],\n"') + "\n")


def save(image, name, **options):
    image.save(FOLDER / name, **options)


def sixteen_bits(pixels):
    """A PNG of 16 bits a channel, which Pillow reads and does not write."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = [pixels[WIDTH * y : WIDTH * (y + 1)] for y in range(HEIGHT)]
    # A filter of 0 (none) before each row.
    raw = b"".join(b"\0" + b"".join(struct.pack(">HHH", *(v * 257 for v in pixel)) for pixel in row) for row in rows)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


if __name__ == "__main__":
    main()
