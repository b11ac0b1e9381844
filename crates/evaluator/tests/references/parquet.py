#!/usr/bin/env python3
"""Makes the Parquet files that the tests of tables read.

    python -m venv venv && venv/bin/pip install pyarrow==26.0.1
    venv/bin/python crates/evaluator/tests/references/parquet.py
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).parent / "parquet"
ROWS = 300


def main():
    FOLDER.mkdir(exist_ok=True)
    # Row n, from 0: "review n % 7" and a second text that no other row has; in between columns that nobody asks for.
    reviews = pa.table(
        {
            "id": pa.array(range(ROWS), pa.int32()),
            "words": [["a", "b"]] * ROWS,
            "text": [f"review {row % 7}" for row in range(ROWS)],
            "more": [{"x": row, "y": [row]} for row in range(ROWS)],
            "answer": [f"ärger {row}" for row in range(ROWS)],
            "label": pa.array([row % 3 for row in range(ROWS)], pa.int64()),
            "score": [row / 2 for row in range(ROWS)],
        }
    )
    # As pandas and the datasets library write: snappy, dictionaries, values that may be left out though none is.
    write(reviews, "usual", row_group_size=128)
    write(reviews, "plain", use_dictionary=False, compression="none")
    write(reviews, "gzip", compression="gzip", data_page_size=64)
    write(reviews, "second-form", data_page_version="2.0", row_group_size=100)
    write(reviews, "zstd", compression="zstd")
    write(reviews, "delta", use_dictionary=False, column_encoding={"answer": "DELTA_BYTE_ARRAY"})
    required = pa.schema([pa.field("text", pa.string(), nullable=False), pa.field("label", pa.int32(), nullable=False)])
    write(pa.table({"text": ["fine", "odd"], "label": [1, 0]}, schema=required), "required")
    write(pa.table({"text": ["fine", None, "odd"], "label": [1, 0, 0]}), "gap")
    write(pa.table({"text": [b"fine", b"\xff"], "label": [1, 0]}), "bytes", use_dictionary=False)


def write(table, name, **options):
    pq.write_table(table, FOLDER / f"{name}.parquet", store_schema=False, **options)


if __name__ == "__main__":
    main()
