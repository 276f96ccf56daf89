"""A contact sheet: many pictures, each with its prompt below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from modalities.image.prompts import Prompt
from suite.storage import replacing

SIDE, FOOT, GAP, COLUMNS = 160, 34, 6, 8


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
    width, height = SIDE + GAP, SIDE + FOOT + GAP
    sheet = Image.new(
        "RGB", (COLUMNS * width + GAP, -(-len(chosen) // COLUMNS) * height + GAP), (242, 242, 244)
    )
    draw = ImageDraw.Draw(sheet)
    for place, i in enumerate(chosen):
        left, top = GAP + place % COLUMNS * width, GAP + place // COLUMNS * height
        sheet.paste(pictures[i].convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
        words = "\n".join(textwrap.wrap(prompts[i].text, 25)[:2])
        draw.multiline_text(
            (left, top + SIDE + 2), words, (20, 20, 24) if right[i] else (200, 30, 40), font, spacing=1
        )
    with replacing(path) as beside:
        sheet.save(beside, "PNG", optimize=True)
