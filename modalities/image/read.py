"""Pictures from disk or memory, as a user hands them over: upright, 8 bits a channel, laid on a ground.

Every picture that is not of the packs comes in through here: what to start from, masks, imagefolders.
"""

from __future__ import annotations

import errno
from contextlib import nullcontext
from typing import Any

import numpy as np
from PIL import Image, ImageOps

# What PIL's decoders raise on a file that is broken or no picture; AVIF's is a RuntimeError.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, Image.DecompressionBombError)


def opened(name: str, source: Any) -> Image.Image:
    """The picture as it is meant to be seen, loaded whole.

    Args:
        name: what the picture is for, as an error calls it.
        source: a path, or a PIL image.

    Returns: upright; 16-bit, 32-bit and float grey as 8 bit.

    Raises: ValueError, in one sentence, if it cannot be read.
    """
    if not isinstance(source, (str, Image.Image)):
        raise ValueError(f"{name} is a {type(source).__name__}; it must be a path or a PIL image")
    held = isinstance(source, Image.Image)
    try:
        with nullcontext(source) if held else Image.open(source) as picture:
            picture = ImageOps.exif_transpose(picture)
            return eight_bit(picture) if picture.mode[0] in "IF" else picture
    except BROKEN as error:
        if getattr(error, "errno", None) in (errno.ENOENT, errno.ENAMETOOLONG):
            if source.startswith("<"):  # the request's label
                told = f"was a picture in memory, which settings cannot carry; give it with --{name} FILE"
                raise ValueError(f"{name} {told}") from None
            raise ValueError(f"{name} is {source!r}; there is no such file") from None
        shown = "an image" if held else repr(source)
        raise ValueError(f"{name} is {shown}; it must be a picture that can be read ({error})") from None


def eight_bit(grey: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits as 8: integers end at 65535, floats at 1, or at 255 if any is above 1."""
    pixels = np.nan_to_num(np.asarray(grey, np.float64))
    top = 65535 if grey.mode.startswith("I") else 255 if pixels.max() > 1 else 1
    return Image.fromarray((pixels * (255 / top)).round().clip(0, 255).astype(np.uint8))


def on_ground(picture: Image.Image, ground: str) -> Image.Image:
    """The picture as RGB, over a ground of this colour where it is transparent."""
    whole = Image.new("RGBA", picture.size, ground)
    whole.alpha_composite(picture.convert("RGBA"))
    return whole.convert("RGB")
