"""Sheets: many pictures on one, side by side, and with each its prompt below."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from suite.storage import replacing

if TYPE_CHECKING:
    from modalities.image.prompts import Prompt

SIDE, FOOT, GAP, COLUMNS, GROUND = 160, 34, 6, 8, (242, 242, 244)


def tiled(
    pictures: Sequence[Image.Image],
    columns: int | None = None,
    gap: int = 0,
    ground: str | tuple[int, int, int] = "white",
) -> Image.Image:
    """Pictures of one size side by side, row after row.

    Args:
        pictures: one or more.
        columns: as near a square as they go if None.
        gap: pixels around each.
        ground: the colour of the gaps and of places left over.
    """
    columns = columns or math.ceil(len(pictures) ** 0.5)
    width, height = (side + gap for side in pictures[0].size)
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), ground)
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (gap + i % columns * width, gap + i // columns * height))
    return sheet


def contact_sheet(
    prompts: Sequence[Prompt],
    pictures: Sequence[Image.Image],
    right: Sequence[bool],
    path: Path,
    count: int = 64,
) -> None:
    """Saves a PNG of `count` of the pictures, of each kind in turn; the prompt of a wrong one is red."""
    kinds = list(dict.fromkeys(p.kind for p in prompts))
    by_kind = [[i for i, p in enumerate(prompts) if p.kind == kind] for kind in kinds]
    longest = max(map(len, by_kind))
    turns = [(n, rows[n]) for n in range(longest) for rows in by_kind if n < len(rows)]
    chosen = sorted(i for _, i in turns[:count])
    font = ImageFont.load_default(size=12)
    tiles = []
    for i in chosen:
        tile = Image.new("RGB", (SIDE, SIDE + FOOT), GROUND)
        tile.paste(pictures[i].convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        words, ink = textwrap.wrap(prompts[i].text, 25)[:2], (20, 20, 24) if right[i] else (200, 30, 40)
        ImageDraw.Draw(tile).multiline_text((0, SIDE + 2), "\n".join(words), ink, font, spacing=1)
        tiles.append(tile)
    with replacing(path) as beside:
        tiled(tiles, COLUMNS, GAP, GROUND).save(beside, "PNG", optimize=True)
