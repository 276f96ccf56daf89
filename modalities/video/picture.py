"""Given frames as tokens beside those of the text: thumbnails of the first and of the last."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]
SIDE, PATCH = 32, 8  # pixels of a thumbnail and of a token's patch
TOKENS = 2 * (SIDE // PATCH) ** 2  # of both frames


def tokens(first: Image.Image | None, last: Image.Image | None) -> Array:
    """(TOKENS, 3 * PATCH^2 + TOKENS) float32: a patch's colours and place; zeros for a frame not given."""
    across, places = SIDE // PATCH, 2 * np.eye(TOKENS, dtype=np.float32)
    made = np.zeros((2, TOKENS // 2, 3 * PATCH**2 + TOKENS), np.float32)
    for number, frame in enumerate((first, last)):
        if frame is not None:
            small = frame.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
            cells = np.asarray(small, np.float32).reshape(across, PATCH, across, PATCH, 3).swapaxes(1, 2)
            made[number, :, : 3 * PATCH**2] = cells.reshape(TOKENS // 2, -1) / 127.5 - 1
            made[number, :, 3 * PATCH**2 :] = places[number * TOKENS // 2 :][: TOKENS // 2]
    return made.reshape(TOKENS, -1)
