import math
import subprocess
import sys

import pytest
from pydantic import ValidationError

from modalities.image import ImageRequest
from suite import guidance, samplers, schedules
from suite.request import Request, controls, explain


def refusal(**fields):
    with pytest.raises(ValidationError) as caught:
        ImageRequest(**{"prompt": "a red apple", **fields})
    return explain(caught.value, ImageRequest.model_fields)


def test_names_are_those_the_core_knows():
    fields = controls(Request)
    assert set(fields["sampler"].choices) == set(samplers.SAMPLERS)
    assert set(fields["spacing"].choices) == set(schedules.SPACINGS)
    assert set(fields["guidance"].choices) == set(guidance.METHODS)


@pytest.mark.parametrize("fields, sentence", [
    ({"num_inference_steps": 0}, "num_inference_steps is 0; it must be at least 1"),
    ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5; it must be a whole number"),
    ({"guidance_scale": math.nan}, "guidance_scale is nan; it must be a finite number"),
    ({"guidance_scale": "inf"}, "guidance_scale is 'inf'; it must be a finite number"),
    ({"seed": -1}, "seed is -1; it must be at least 0"),
    ({"seed": 2**32}, "seed is 4294967296; it must be below 4294967296"),
    ({"strength": 0}, "strength is 0; it must be above 0"),
    ({"width": 250}, "width is 250; it must be a multiple of 16 (try 256)"),
    ({"width": 40}, "width is 40; it must be a multiple of 16 (try 64)"),
    ({"width": 2100}, "width is 2100; it must be a multiple of 16 (try 2048)"),
    ({"width": "wide"}, "width is 'wide'; it must be a whole number"),
    ({"prompt": " "}, "prompt is ' '; it must say what to draw"),
    ({"prompt": "()"}, "prompt is '()'; it must say what to draw"),
    ({"prompt": "((:1.3), [.])"}, "prompt is '((:1.3), [.])'; it must say what to draw"),
    ({"prompt": None}, "prompt is None; it must be text"),
    ({"mask": "mask.png"}, "mask is given without init; a mask says where to redraw the init file"),
    ({"guidance_low": 0.5, "guidance_high": 0.5}, "guidance_low is 0.5; it must be below guidance_high"),
    ({"sead": 1}, "sead is not a field of ImageRequest (did you mean seed?)"),
    ({"spacing": "even"},
     "spacing is 'even'; it must be one of leading, linspace, trailing, karras, exponential, beta, shifted"),
])  # fmt: skip
def test_a_refusal_says_what_came_and_what_must_hold(fields, sentence):
    assert refusal(**fields) == sentence


def test_every_bound_of_every_number_is_kept():
    for name, control in controls(ImageRequest).items():
        if control.kind in ("int", "float"):
            for value in (control.low - 1, control.high + 1, math.nan):
                assert name in refusal(**{name: value})


def test_every_default_is_allowed_and_every_control_has_help():
    request = ImageRequest(prompt="a red apple")
    for name, control in controls(ImageRequest).items():
        assert control.help
        if name != "prompt":
            assert getattr(request, name) == control.default


def test_what_the_caller_set_wins_over_the_model_s_defaults():
    request = ImageRequest(prompt="x", seed=3, sampler="euler").filled({"sampler": "heun", "width": 128})
    assert (request.seed, request.sampler, request.width, request.height) == (3, "euler", 128, 256)


def test_a_request_survives_json():
    request = ImageRequest(
        prompt="ein Äpfelchen 🍎", init="a.png", mask="b.png", loop=True, eta=0.5, sampler="ddim"
    )
    assert ImageRequest.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize("prompt", ["x", "7", "(🍎:1.3)", "苹果", "é"])
def test_a_letter_a_digit_or_a_symbol_is_a_prompt(prompt):
    assert ImageRequest(prompt=prompt).prompt == prompt


def test_importing_a_request_loads_no_torch():
    code = "import sys, modalities.image, suite.request; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
