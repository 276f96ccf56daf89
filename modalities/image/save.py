"""Pictures on disk with the settings that drew them: PNG, JPEG, WebP; the same bytes for the same picture.

PNG carries text chunks: `parameters`, as AUTOMATIC1111's web UI writes it and many programs read it, and our
settings as JSON under `suite`. JPEG and WebP carry the first in EXIF UserComment, the second in XMP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modalities.image.read import BROKEN
from suite.storage import replacing

KEY = "suite"
_SPACE = "https://diffusion-suite.invalid/xmp/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_EXIF, _USER_COMMENT = 0x8769, 0x9286
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class Picture(Image.Image):
    """A PIL image whose `save` to a path writes its settings too; so do its copies, pickled ones as well.

    The settings are where PIL has them when it opens a PNG of ours: as JSON in `info`.
    """

    @property
    def settings(self) -> dict[str, Any]:
        """What drew the picture."""
        found: dict[str, Any] = json.loads(self.info[KEY])
        return found

    def copy(self) -> Picture:
        """The same picture, with its settings."""
        return with_settings(super().copy(), self.settings)

    __copy__ = copy

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Saves with settings; with a format or options of PIL's, exactly as PIL does."""
        if format is None and not params and isinstance(fp, (str, Path)):
            save(self, Path(fp), self.settings)
        else:
            super().save(fp, format, **params)


def with_settings(picture: Image.Image, settings: Mapping[str, Any]) -> Picture:
    """The same picture, carrying settings."""
    carrying = Picture()
    carrying.__dict__.update(picture.__dict__)
    carrying.info = {**picture.info, KEY: json.dumps(settings)}
    return carrying


def parameters(settings: Mapping[str, Any]) -> str:
    """Settings in the text form of AUTOMATIC1111's web UI."""
    asked = settings["request"]
    told = {
        "Steps": asked["num_inference_steps"],
        "Sampler": asked["sampler"],
        "Schedule type": asked["spacing"],
        "CFG scale": asked["guidance_scale"],
        "Seed": asked["seed"],
        "Size": f"{asked['width']}x{asked['height']}",
        "Model": str(asked["model"]).replace(",", " ").replace("\n", " "),
        "Version": f"diffusion-suite {settings['suite']}",
    }
    if asked["init"] is not None:
        told["Denoising strength"] = asked["strength"]
    negative = f"Negative prompt: {asked['negative_prompt']}\n" if asked["negative_prompt"] else ""
    return f"{asked['prompt']}\n{negative}" + ", ".join(f"{key}: {value}" for key, value in told.items())


def save(picture: Image.Image, path: Path, settings: Mapping[str, Any]) -> None:
    """Writes a picture with its settings, beside its place, then renamed.

    Args:
        picture: an RGB picture.
        path: its ending says the format: .png, .jpg, .jpeg or .webp (lossless).
        settings: as `Result.settings` holds them.
    Raises: ValueError for another ending.
    """
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise ValueError(f"output is {str(path)!r}; its ending must be one of {', '.join(_FORMATS)}")
    text, ours = parameters(settings), json.dumps(settings)
    options: dict[str, Any]
    if form == "PNG":
        info = PngInfo()
        info.add_text("parameters", text)
        info.add_text(KEY, ours)
        options = {"pnginfo": info}
    else:
        exif = Image.Exif()
        exif.get_ifd(_EXIF)[_USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
        options = {"exif": exif, "xmp": xmp(ours), "quality": 95}
        options |= {"subsampling": 0} if form == "JPEG" else {"lossless": True}
    with replacing(path) as part:
        Image.Image.save(picture, part, form, **options)


def restore(path: Path) -> dict[str, Any]:
    """The request a saved picture carries.

    Raises: ValueError if the file is no picture or carries no settings of ours.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            ours = picture.info.get(KEY) or from_xmp(picture.info.get("xmp", b""))
        asked = json.loads(ours)["request"] if ours else None
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (*BROKEN, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no picture whose settings can be read: {error}") from None
    if not isinstance(asked, dict):
        raise ValueError(f"{path} carries no settings of diffusion-suite")
    return asked


def xmp(text: str) -> bytes:
    """An XMP packet that holds a text as our settings."""
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about="" '
        f'xmlns:suite="{_SPACE}" suite:settings={quoteattr(text)}/></rdf:RDF></x:xmpmeta>'
    ).encode()


def from_xmp(packet: bytes | str) -> str | None:
    """The text that `xmp` put into a packet; None if it holds none."""
    if not packet:
        return None
    try:
        root = ElementTree.fromstring(packet if isinstance(packet, str) else packet.rstrip(b"\0"))
    except ElementTree.ParseError:
        return None
    found = root.find(f".//{{{_RDF}}}Description")
    return None if found is None else found.get(f"{{{_SPACE}}}settings")
