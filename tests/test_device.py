import pytest
import torch

from suite import device


def machine(monkeypatch, cuda=0, mps=False, capability=(9, 0)):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize("has, place, dtype", [
    ({}, "cpu", torch.float32),
    ({"mps": True}, "mps", torch.float32),
    ({"cuda": 1}, "cuda", torch.bfloat16),
    ({"cuda": 1, "capability": (7, 5)}, "cuda", torch.float32),
])
def test_the_fastest_device_is_chosen_in_the_precision_it_computes_in(monkeypatch, has, place, dtype):
    machine(monkeypatch, **has)
    assert device.choose() == device.choose("auto", "auto") == (torch.device(place), dtype)


def test_device_and_precision_can_be_set(monkeypatch):
    machine(monkeypatch, cuda=2)
    assert device.choose("cuda:1", "fp16") == (torch.device("cuda:1"), torch.float16)
    assert device.choose("cpu", torch.bfloat16) == (torch.device("cpu"), torch.bfloat16)
    assert device.choose("cpu") == (torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("wrong", ["cuda:2", "mps", "gpu", "meta"])
def test_a_device_that_is_not_there_is_refused_in_words(monkeypatch, wrong):
    machine(monkeypatch, cuda=2)
    with pytest.raises(ValueError, match=f"device is '{wrong}'; this machine has cuda, cpu"):
        device.choose(wrong)


def test_an_unknown_precision_is_refused_in_words():
    with pytest.raises(ValueError, match="dtype is 'int3'; it must be one of auto, fp32"):
        device.choose("cpu", "int3")
