"""A distilled network takes its teacher's many guided steps in few, and any other number as before."""

import json
from itertools import pairwise

import pytest
import torch

from modalities import image
from suite import cli, storage
from suite.denoiser import Denoiser
from suite.distill import FEW, FINE, Teacher, distillation_loss
from suite.drive import sample
from suite.guidance import guided
from suite.samplers import euler
from suite.schedules import make
from suite.text import Conditioning
from tests.test_train import AUTOENCODER, DIFFUSION

NETWORK = {"type": "unet", "channels": 4, "widths": [16, 32], "blocks": 1, "attention": [True, True]}
NETWORK |= {"context_width": 8}


def conditioning(rows, seed=0):
    tokens = torch.randn(rows, 3, 8, generator=torch.Generator().manual_seed(seed))
    return Conditioning(tokens, torch.ones(rows, 3, dtype=torch.bool))


def stirred(network, seed=0):
    """With all weights small and random, so that nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture
def teacher(tmp_path):
    told = {"network": NETWORK, "schedule": {"name": "flow"}, "prediction": "v_prediction"}
    told["defaults"] = {"guidance_scale": 3.0, "spacing": "shifted", "shift": 3.0}
    storage.save(tmp_path / "teacher", stirred(storage.built(NETWORK, "")), told)
    return Teacher(str(tmp_path / "teacher"))


def lesson_of(teacher, told=(True, True), seed=0):
    cond, empty = conditioning(2), conditioning(1, 1)
    generator = torch.Generator().manual_seed(seed)
    return teacher.lesson(torch.zeros(2, 4, 8, 8), cond, empty, told, generator)


@pytest.mark.parametrize("told", [(True, True), (True, False)])
def test_strides_lead_where_the_teachers_guided_steps_lead(teacher, told):
    lesson = lesson_of(teacher, told)
    grid = teacher.grids[FINE]
    scales = [3.0 if kept else 1.0 for kept in told]
    denoise = guided(teacher.denoiser, conditioning(2), conditioning(1, 1).select([0, 0]), scales)
    x = lesson.states[:2]  # one stride, from noise alone
    wanted = sample(euler(x, grid), denoise)
    assert lesson.sigma[0] == grid[0] and (x.std() / grid[0]).item() == pytest.approx(1, abs=0.1)
    first = 0
    for n in FEW:
        for high, low in pairwise(teacher.grids[n]):
            rows = slice(2 * first, 2 * first + 2)
            assert (lesson.sigma[rows] == high).all() and (lesson.until[rows] == low).all()
            x = torch.lerp(lesson.wanted[rows], lesson.states[rows], low / high)
            following = lesson.states[rows.stop : rows.stop + 2] if low else wanted
            assert torch.allclose(x, following, atol=1e-4)
            first += 1
    tangents = slice(2 * first, None)
    assert (lesson.sigma[tangents] == lesson.until[tangents]).all() and len(lesson.sigma[tangents])
    states, levels = lesson.states[tangents], lesson.sigma[tangents]
    estimate = denoise(states[:2], float(levels[0]))
    assert torch.allclose(lesson.wanted[tangents][:2], estimate, atol=1e-4)


def test_a_network_that_reads_strides_begins_as_its_teacher_and_learns_them(teacher):
    student = storage.built({**NETWORK, "stride": True}, "")
    student.load_state_dict(student.grown(teacher.denoiser.network.state_dict()))
    denoiser = Denoiser(student, make(name="flow"), "v_prediction")
    lesson = lesson_of(teacher)
    plain = teacher.denoiser(lesson.states, lesson.sigma, lesson.cond)
    assert torch.equal(denoiser(lesson.states, lesson.sigma, lesson.cond, lesson.until), plain)
    optimiser = torch.optim.Adam(student.parameters(), 3e-3)
    losses = []
    for seed in range(60):
        loss = distillation_loss(denoiser, lesson_of(teacher, seed=seed % 4)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    rows = slice(0, 2)
    far = denoiser(lesson.states[rows], lesson.sigma[rows], lesson.cond.select([0, 1]), lesson.until[rows])
    near = denoiser(lesson.states[rows], lesson.sigma[rows], lesson.cond.select([0, 1]), lesson.sigma[rows])
    assert (far - near).abs().mean() > 0.05 * far.abs().mean()
    nothing = denoiser(lesson.states[rows], lesson.sigma[rows], lesson.cond.select([0, 1]))
    assert torch.allclose(near, nothing, atol=1e-5)


@pytest.mark.parametrize(("asked", "strides"), [
    ({"num_inference_steps": 4}, True), ({"num_inference_steps": 1}, True),
    ({"num_inference_steps": 3}, False), ({"num_inference_steps": 5}, False),
    ({"num_inference_steps": 4, "sampler": "heun"}, False),
    ({"num_inference_steps": 4, "guidance_scale": 2.0}, True),
])  # fmt: skip
def test_few_steps_of_euler_are_strides_and_all_others_are_not(
    tiny_model, words, monkeypatch, asked, strides
):
    pipe, seen = image.load(tiny_model), []
    pipe.network.config["stride"] = True
    real = pipe.network.forward
    monkeypatch.setattr(
        pipe.network,
        "forward",
        lambda *told: (seen.append([x[0].item() for x in told[4:]]), real(*told[:4]))[1],
    )
    pipe("a red disc", width=64, height=64, spacing="shifted", **asked)
    if not strides:
        assert seen and not any(seen)
    else:
        count = asked["num_inference_steps"]
        assert len(seen) == count and sum(stride for (stride,) in seen) == pytest.approx(1000, abs=1)


def test_a_model_is_distilled_from_the_command_line(
    pictures,
    tmp_path,
    words,
    tiny_model,
    monkeypatch,
    capsys,
):
    monkeypatch.setattr("suite.train.load_text", lambda name, limit=None: words)
    told = storage.config(tiny_model)
    recipe = DIFFUSION.replace('"image-vae"', json.dumps(str(storage.find(told["latent"], near=tiny_model))))
    network = {k: v for k, v in told["network"].items() if k != "type"}
    head, tail = recipe.split("[network]")
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in network.items())
    recipe = f'{head}[network]\ntype = "unet"\n{lines}\n[train]{tail.split("[train]")[1]}'
    recipe = recipe.replace('"flow"\nprompts', f'"{told["prediction"]}"\nprompts')
    (tmp_path / "recipe.toml").write_text(recipe + "[distill]\nlearning_rate = 1e-3\n")
    line = ["distill", "image", "--data", str(pictures), "--recipe", str(tmp_path / "recipe.toml")]
    line += ["--model", str(tiny_model), "--out", str(tmp_path / "few"), "--steps", "2", "--batch", "2"]
    assert cli.main(line) == 0
    made = storage.config(tmp_path / "few")
    assert made["network"]["stride"] and made["defaults"]["guidance_scale"] == 1
    assert made["defaults"]["num_inference_steps"] == 4
    head = (tmp_path / "few/recipe.toml").read_text().splitlines()[0]
    assert head == f"# with distilled --steps 2 --batch 2 --model {tiny_model}"
    assert len(image.load(tmp_path / "few")("a red disc").images) == 1
    capsys.readouterr()
    (tmp_path / "vae.toml").write_text(AUTOENCODER)
    assert cli.main([*line[:5], str(tmp_path / "vae.toml"), "--out", str(tmp_path / "no")]) == 2
    said = capsys.readouterr().err
    assert "kind 'autoencoder'; to distil it must be 'diffusion'" in said and said.count("\n") == 1
