"""What the composers of every medium share: the lines of a pack, and what training never sees."""

import json
import zlib
from pathlib import Path
from typing import Any

ROW = ("file_name", "text")  # what a line of metadata.jsonl must say


def held_out(*names: str, share: float = 0.1) -> bool:
    """Whether this combination is kept from training: a hash of the names, the same on every machine."""
    return zlib.crc32(" | ".join(names).encode()) % 1000 < 1000 * share


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's metadata.jsonl; ValueError, naming the line, if one names no file and text."""
    path, rows = folder / "metadata.jsonl", []
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if line.strip():
                row = json.loads(line)
                if not (isinstance(row, dict) and all(isinstance(row.get(k), str) for k in ROW)):
                    raise ValueError(f"line {number} must be an object with {' and '.join(ROW)}")
                if not (folder / row["file_name"]).is_file():
                    raise ValueError(f"line {number} names {row['file_name']!r}; there is no such file")
                rows.append(row)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as training data: {error}") from None
    return rows
