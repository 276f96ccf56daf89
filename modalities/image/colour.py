"""Colour words: which word a patch of pixels answers to, and how to make an object answer to another.

The words are decided on hue, saturation and value alone, so that a caption, a training scene and the judge of
a generated picture mean the same thing by "red".
"""

import numpy as np
from PIL import Image

HUES = {"red": 356, "orange": 28, "yellow": 50, "green": 125, "blue": 215, "purple": 273, "pink": 325}
COLOURS = (*HUES, "brown", "black", "white", "gray")
SWATCHES = {"red": (226, 48, 52), "orange": (247, 140, 40), "yellow": (250, 212, 60), "green": (72, 172, 84),
            "blue": (66, 133, 235), "purple": (140, 84, 208), "pink": (244, 134, 190), "brown": (136, 88, 52),
            "black": (24, 24, 28), "white": (255, 255, 255), "gray": (150, 150, 152)}
EDGES = np.array([14, 39, 66, 170, 253, 297, 340])  # the hue at which each of NAMES ends
NAMES = np.array(["red", "orange", "yellow", "green", "blue", "purple", "pink", "red"])


def words(rgb: np.ndarray) -> np.ndarray:
    """The colour word of each pixel.

    Args:
        rgb: (N, 3) uint8, sRGB.

    Returns: (N,) str, each one of COLOURS.
    """
    hsv = np.asarray(Image.fromarray(rgb.reshape(1, -1, 3)).convert("HSV"), np.float32)[0]
    hue, saturation, value = hsv[:, 0] * (360 / 256), hsv[:, 1] / 255, hsv[:, 2] / 255
    names = NAMES[np.searchsorted(EDGES, hue, side="right")]
    names = np.where((names == "red") & (saturation < 0.5) & (value > 0.75), "pink", names)
    names = np.where(np.isin(names, ("orange", "red", "yellow")) & (value < 0.62) & (hue < 60) & (hue > 8),
                     "brown", names)
    dull = saturation < 0.16
    names = np.where(dull, np.where(value > 0.82, "white", "gray"), names)
    return np.where((value < 0.24) | (dull & (value < 0.34)), "black", names)


def shares(rgb: np.ndarray, alpha: np.ndarray | None = None) -> dict[str, float]:
    """How much of an object answers to each colour word.

    Args:
        rgb: (H, W, 3) uint8, sRGB.
        alpha: (H, W) uint8; pixels above 128 are the object. All of them where it is None.

    Returns: word to share, largest first; empty where the object has no pixel.
    """
    pixels = rgb.reshape(-1, 3) if alpha is None else rgb[alpha > 128]
    if not len(pixels):
        return {}
    names, counts = np.unique(words(pixels), return_counts=True)
    found = zip(names.tolist(), (counts / len(pixels)).tolist(), strict=True)
    return dict(sorted(found, key=lambda item: -item[1]))


def colour_of(picture: Image.Image, least: float = 0.6) -> str | None:
    """The one colour word an RGBA object answers to, if a share of at least `least` of it does."""
    pixels = np.asarray(picture.resize((48, 48), Image.Resampling.NEAREST))
    found = shares(pixels[..., :3], pixels[..., 3])
    word = next(iter(found), None)
    return word if word and found[word] >= least else None


def recolour(picture: Image.Image, word: str) -> Image.Image | None:
    """The same RGBA object in another colour: its hues turned together, or its saturation and value changed.

    Args:
        picture: RGBA.
        word: one of COLOURS.

    Returns: the recoloured object, or None where the result would not answer to the word.
    """
    hsv = np.asarray(picture.convert("RGB").convert("HSV"), np.float32).copy()
    opaque = np.asarray(picture)[..., 3] > 128
    vivid = opaque & (hsv[..., 1] > 60) & (hsv[..., 2] > 60)
    if vivid.sum() < 0.3 * max(1, opaque.sum()):
        return None
    hues = hsv[..., 0][vivid] * (2 * np.pi / 256)
    centre = np.angle(np.exp(1j * hues).mean()) * (128 / np.pi)
    if word in HUES or word == "brown":
        hsv[..., 0] = (hsv[..., 0] - centre + HUES.get(word, 24) * (256 / 360)) % 256
        if word == "brown":
            hsv[..., 1] = hsv[..., 1] * 0.75
            hsv[..., 2] = hsv[..., 2] * 0.5
        elif word == "pink":
            hsv[..., 1] = hsv[..., 1] * 0.6
    else:
        hsv[..., 1] = hsv[..., 1] * 0.1
        dark, light = {"black": (0.0, 0.22), "gray": (0.30, 0.75), "white": (0.80, 1.0)}[word]
        hsv[..., 2] = 255 * dark + hsv[..., 2] * (light - dark)
    turned = Image.fromarray(hsv.clip(0, 255).astype(np.uint8), "HSV").convert("RGB")
    turned.putalpha(picture.getchannel("A"))
    return turned if colour_of(turned) == word else None
