"""`suite eval mesh`: draws prompts of colours, materials and names training never had, and judges the meshes.

Points of the surface tell the colour; a network trained on real shapes tells what a mesh is. Both are judged
themselves on real shapes of the same prompts, and on shapes of other prompts, which is chance.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalities.judging import (
    SHARES,
    Verdict,
    asked_for,
    mean,
    others,
    parser,
    publish,
    scores,
    share,
    told,
)
from modalities.mesh import MeshRequest, adapter
from suite import storage

if TYPE_CHECKING:
    from modalities.mesh.measure import Cloud
    from modalities.mesh.prompts import Prompt
    from modalities.mesh.save import Model
    from modalities.naming import Namer
    from suite.pipeline import Pipeline

    Draw = Callable[..., Model]  # (prompt, **fields of the request) -> mesh

AMONG = 5  # names, of 227
FEW = 8  # files that OpenUSD reads
DENSE = 32_768  # points of a surface that is compared with itself
FIXED = ("prompt", "negative_prompt", "seed", "image", "input", "init", "strength", "mask", "loop",
         "num_meshes", "levels", "side")  # fmt: skip


def looks(clouds: Sequence[Cloud], namer: Namer) -> list[dict[str, Any]]:
    """What each cloud looks like: the `names` that come first, AMONG of them, and its `colour`."""
    from modalities.mesh.compose import dominant

    found = []
    for cloud in clouds:
        best = namer.scores([cloud])[0].topk(min(AMONG, len(namer.names))).indices.tolist()
        found.append({"names": [namer.names[i] for i in best], "colour": dominant(cloud[1])[0]})
    return found


def verdict(prompt: Prompt, look: Mapping[str, Any]) -> Verdict:
    """Judges what one mesh looks like; it is named right if the name asked for is among the first."""
    named = prompt.name in look["names"]
    seen = not prompt.colours or look["colour"] in prompt.colours
    return Verdict(named, seen, named and seen)


def table(asked: Sequence[Prompt], found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The scores of each kind and their mean, and the share whose name comes `first` of all.

    Args:
        asked: the prompts.
        found: what each one's mesh looks like.
    """
    from modalities.mesh.prompts import MEASURED

    kinds = [prompt.kind for prompt in asked]
    rows = scores(kinds, [verdict(*pair) for pair in zip(asked, found, strict=True)])
    firsts = [prompt.name == look["names"][0] for prompt, look in zip(asked, found, strict=True)]
    for kind in dict.fromkeys(kinds):
        rows[kind]["first"] = mean([hit for k, hit in zip(kinds, firsts, strict=True) if k == kind])
    every = [row for kind, row in rows.items() if kind != "mean"]
    rows["mean"]["first"] = mean([row["first"] for row in every])
    rows["mean"]["seen"] = mean([row["seen"] for kind, row in rows.items() if kind in MEASURED])
    return rows


def real_scenes(namer: Namer, asked: Sequence[Prompt], real: Mapping[int, Cloud]) -> dict[str, Any]:
    """The judge's own scores: on real shapes of the prompts, and of other prompts of their kind: chance."""
    some = [asked[i] for i in real]
    found = looks(list(real.values()), namer)
    ways = {"real": found, "chance": [found[i] for i in others([prompt.kind for prompt in some])]}
    return {way: table(some, each) for way, each in ways.items()}


def reconstructed(pipe: Pipeline, paths: Sequence[Path]) -> dict[str, Any]:
    """How far shapes are from themselves through the latents and back.

    Returns: mean Chamfer distances and F-scores; of other points of the same surfaces, too: the best.
    """
    import numpy as np
    import torch

    from modalities.mesh.finish import surface_of
    from modalities.mesh.measure import chamfer, cloud_of, f_score
    from modalities.mesh.sample import sampled

    request = pipe.request("a shape", texture="0")
    far: dict[str, list[tuple[float, float]]] = {"decoded": [], "the same": []}
    for path in told("reconstructions", paths):
        rng = np.random.default_rng(0)
        points = sampled(path, rng, 2 * DENSE).points
        x, _ = pipe.adapter.read(request.model_copy(update={"init": str(path)}), ())
        assert x is not None
        with torch.no_grad():
            decoded = pipe.latent.decode(pipe.latent.encode(x.to(pipe.device)).float()).float().cpu()
        made = surface_of(decoded[0].numpy())
        ways = {"decoded": cloud_of(made, rng, DENSE)[0], "the same": points[DENSE:]}
        for way, some in ways.items():
            far[way].append((chamfer(some, points[:DENSE]), f_score(some, points[:DENSE])))
    return {"shapes": len(paths), **{
        way: {"chamfer": mean([row[0] for row in rows]), "F-score": mean([row[1] for row in rows])}
        for way, rows in far.items()
    }}  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Runs the evaluation; a bad request is a ValueError, which `suite` tells in one sentence."""
    options = parser(adapter, "Judges what a model makes of combinations it never had.", FIXED)
    given = options.parse_args(list(argv))
    fields = asked_for(given, MeshRequest, FIXED)
    model = fields.pop("model", MeshRequest(prompt="a check").model)
    storage.find(model)

    from modalities.mesh import load
    from modalities.mesh.measure import likeness
    from modalities.mesh.measure import namer as load_namer
    from modalities.mesh.prompts import NAMES, parted, prompts, real_shapes
    from modalities.mesh.shapes import load as load_shapes

    if given.data:
        parted(given.data)  # refuses what are no packs
    namer, config = load_namer(NAMES, given.judge)
    pipe = load(model, given.device, given.dtype)

    def draw(prompt: str, **more: Any) -> Model:
        more["seed"] %= 2**32
        made: Model = pipe(prompt, **{**fields, **more}).items[0]
        return made

    report = evaluate(draw, namer, given.count, given.seed, sheet=given.sheet)
    clouds, own = report.pop("clouds"), config.get("real_scenes", {})
    if given.data:
        asked = prompts(given.count, given.seed)
        real = real_shapes(asked, given.data)
        own = real_scenes(namer, asked, {i: (s.points, s.colours) for i, (_, s) in real.items()})
        once = {path: i for i, (path, _) in real.items()}.values()
        if once:
            pairs = [(clouds[i][0], real[i][1].points) for i in once]
            report["likeness"] = {"shapes": len(pairs), **likeness(*zip(*pairs, strict=True))}
        if held := [shape.path for shape in load_shapes(given.data) if shape.held]:
            report["reconstruction"] = reconstructed(pipe, held)
    used = pipe.request("a check", **fields)
    report |= {"model": model, "request": used.model_dump(mode="json", exclude=set(FIXED)),
               "judge": {"held_out": config.get("held_out"), **own}}  # fmt: skip
    publish(report, markdown(report), given.json)
    return 0


def evaluate(draw: Draw, namer: Namer, count: int, seed: int, sheet: Path | None = None) -> dict[str, Any]:
    """Every figure that needs meshes drawn.

    Args:
        draw: (prompt, **fields) to a mesh.
        namer: names meshes.
        count: prompts of each kind.
        seed: of the prompts; mesh i has seed + i.
        sheet: where to save the contact sheet.
    Returns: scores, single verdicts, the shares that are watertight and whose files hold, the meshes' clouds.
    """
    import numpy as np

    from modalities.mesh.measure import cloud_of, faults_gltf, faults_usd, sound
    from modalities.mesh.prompts import prompts
    from modalities.mesh.save import closed

    asked = prompts(count, seed)
    clouds, whole, triangles, pictures = [], [], [], []
    few = 0 if faults_usd([]) is None else FEW  # without usd-core none can be written
    with tempfile.TemporaryDirectory() as folder:
        for i, prompt in enumerate(told("prompts", asked)):
            made = draw(prompt.text, seed=seed + i)
            clouds.append(cloud_of(made.mesh, np.random.default_rng(0)))
            whole.append(closed(made.mesh))
            triangles.append(len(made.mesh.faces))
            made.save(Path(folder, f"{i:04}.glb"))
            if i < few:
                made.save(Path(folder, f"{i:04}.usdz"))
            if sheet:
                pictures.append(made.picture())
        files = {"glTF": sound(faults_gltf(sorted(Path(folder).glob("*.glb")))),
                 "USD": sound(faults_usd(sorted(Path(folder).glob("*.usdz"))))}  # fmt: skip
    found = looks(clouds, namer)
    verdicts = [verdict(*pair) for pair in zip(asked, found, strict=True)]
    if sheet:
        from modalities.image.sheet import contact_sheet

        contact_sheet(asked, pictures, [v.right for v in verdicts], sheet)  # type: ignore[arg-type]
    return {
        "seed": seed,
        "scores": table(asked, found),
        "meshes": {"number": len(asked), "watertight": mean(whole), **files, "triangles": mean(triangles)},
        "prompts": [
            {**asdict(p), **asdict(v), "looks": look}
            for p, v, look in zip(asked, verdicts, found, strict=True)
        ],
        "clouds": clouds,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report as the model card shows it."""
    from modalities.mesh.prompts import MEASURED

    judge = report["judge"]
    lines = ["| prompts | number | right | named | first | colour | real: right | named | colour | chance |",
             "| --- " * 10 + "|"]  # fmt: skip
    for kind, row in report["scores"].items():
        real, chance = (judge.get(way, {}).get(kind) for way in ("real", "chance"))
        cells = [*((row, what) for what in ("named", "first", "seen")), *((real, what) for what in SHARES),
                 (chance, "right")]  # fmt: skip
        measured = kind in (*MEASURED, "mean")
        shown = [f"{one[what]:.2f}" if one and (what != "seen" or measured) else "-" for one, what in cells]
        shown.insert(0, share(row["right"], row["prompts"]))
        lines.append(f"| {kind} | {row['prompts']} | {' | '.join(shown)} |")
    held, made = judge["held_out"], report["meshes"]
    lines.append("")
    if held and held["shapes"]:
        best = f"first {held['top1']:.2f}, among the first five {held['top5']:.2f}"
        of = f"{held['shapes']} of {held['asked']} names, {held['names']} to choose from"
        lines.append(f"- judge, held-out shapes: the right name is {best} of the time ({of})")
    lines.append(f"- {made['number']} meshes of {made['triangles']:.0f} triangles on average: watertight "
                 f"{made['watertight']:.2f}")  # fmt: skip
    for name, who in (("glTF", "Khronos' validator and asset auditor"), ("USD", "OpenUSD's validators")):
        if made[name] is not None:
            lines[-1] += f", {who} have nothing to say of {made[name]:.2f}"
    if "likeness" in report:
        like = report["likeness"]
        far = f"coverage {like['coverage']:.2f}, 1-NNA {like['1-NNA']:.2f}"
        lines.append(f"- beside {like['shapes']} real shapes of the prompts: {far}")
    if "reconstruction" in report:
        decoded, same = report["reconstruction"]["decoded"], report["reconstruction"]["the same"]
        lines.append(
            f"- {report['reconstruction']['shapes']} held-out shapes through the latents and back: F-score "
            f"{decoded['F-score']:.3f} (at best {same['F-score']:.3f}), Chamfer distance "
            f"{1000 * decoded['chamfer']:.2f}e-3 (at best {1000 * same['chamfer']:.2f}e-3)"
        )
    return "\n".join(lines) + "\n"
