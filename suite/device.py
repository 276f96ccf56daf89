"""Where a model runs and in which precision: chosen from what the machine has, unless it is said.

CUDA with bfloat16 where the card computes in it; Apple MPS and the CPU in float32, the same in a
batch as alone; bfloat16 on a recent CPU is faster and can be asked for.
"""

from __future__ import annotations

import torch

PRECISIONS = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}


def available() -> list[str]:
    """The kinds of device of this machine, fastest first."""
    kinds = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()), ("cpu", True)]
    return [kind for kind, there in kinds if there]


def choose(
    device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> tuple[torch.device, torch.dtype]:
    """Chooses what was left open.

    Args:
        device: "cuda", "cuda:1", "mps", "cpu"; None or "auto": the fastest there is.
        dtype: of the networks, "fp32", "bf16" or "fp16"; None or "auto": bf16 on CUDA, else fp32.
    Raises:
        ValueError: this machine has no such device, or there is no such precision.
    """
    kinds = available()
    try:
        place = torch.device(kinds[0] if device is None or device == "auto" else device)
    except RuntimeError:
        place = None
    count = torch.cuda.device_count() if place is not None and place.type == "cuda" else 1
    if place is None or place.type not in kinds or (place.index or 0) >= count:
        raise ValueError(f"device is {str(device)!r}; this machine has {', '.join(kinds)}")
    if isinstance(dtype, str) and dtype != "auto":
        if dtype not in PRECISIONS:
            raise ValueError(f"dtype is {dtype!r}; it must be one of auto, {', '.join(PRECISIONS)}")
        return place, PRECISIONS[dtype]
    if isinstance(dtype, torch.dtype):
        return place, dtype
    native = place.type == "cuda" and torch.cuda.get_device_capability(place) >= (8, 0)
    return place, torch.bfloat16 if native else torch.float32
