"""One self-contained web page that spins a mesh: it opens from disk, and asks no network for anything."""

from __future__ import annotations

import base64
import html
from pathlib import Path

GLB = "data:model/gltf-binary;base64,"
VIEWER = Path(__file__).with_name("model-viewer.min.js")  # npm @google/model-viewer 4.4.0, Apache-2.0
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src data: blob:; worker-src blob:"
)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
html, body {{ height: 100%; margin: 0; background: #f5f5f5; }}
model-viewer {{ width: 100%; height: 100%; --poster-color: transparent; --progress-bar-color: transparent; }}
</style>
</head>
<body>
<model-viewer alt="{title}" src="{model}" poster="{poster}" camera-controls auto-rotate auto-rotate-delay="0"
 rotation-per-second="30deg" interaction-prompt="none" shadow-intensity="1" camera-orbit="-30deg 68deg auto"
 touch-action="pan-y"></model-viewer>
<script type="module">{viewer}</script>
</body>
</html>
"""


def page(glb: bytes, title: str, poster: bytes) -> str:
    """The page's HTML.

    Args:
        glb: the mesh, without compression that the viewer would have to fetch a decoder for.
        title: of the page, and what is read aloud in place of the mesh.
        poster: a PNG that is shown until the mesh is.
    """
    return _PAGE.format(
        policy=_POLICY,
        title=html.escape(title),
        model=GLB + base64.b64encode(glb).decode(),
        poster="data:image/png;base64," + base64.b64encode(poster).decode(),
        viewer=VIEWER.read_text("utf-8").split("//# sourceMappingURL")[0].replace("</script", "<\\/script"),
    )
