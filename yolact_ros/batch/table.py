"""Write instances as a Parquet table, one row each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from yolact_ros.files import shown

SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("stamp", pa.float64()),
        ("frame_type", pa.string()),
        ("keyframe_reason", pa.string()),
        ("track_id", pa.int64()),
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("score", pa.float32()),
        ("mask_score", pa.float32()),
        ("box", pa.list_(pa.float32(), 4)),
        ("rle", pa.string()),
    ]
)


def write_table(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write the instances of entries of `runtime.output.entries`; `rle` is COCO's `counts`.

    A table holds UTF-8; other bytes of a name become escapes.
    """
    rows = [
        {
            **entry,
            **instance,
            "image": shown(entry["image"]),
            "rle": instance["segmentation"]["counts"],
        }
        for entry in entries
        for instance in entry["instances"]
    ]
    parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
