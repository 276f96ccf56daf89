"""The core of the diffusion suite: tensors, noise levels and model folders; it knows no medium.

The public names below load on first use, so that `import suite` loads no torch.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "Request": "request",
    "explain": "request",
    "Pipeline": "pipeline",
    "Progress": "pipeline",
    "Result": "pipeline",
    "Denoiser": "denoiser",
    "PREDICTIONS": "denoiser",
    "Schedule": "schedules",
    "SCHEDULES": "schedules",
    "SPACINGS": "schedules",
    "SAMPLERS": "samplers",
    "Noise": "noise",
    "TextEncoder": "text",
    "Conditioning": "text",
    "guided": "guidance",
    "METHODS": "guidance",
    "SamplerScheduler": "compat",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    """Loads a public name from its module on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'suite' has no attribute {name!r}")
    return getattr(import_module(f"suite.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
