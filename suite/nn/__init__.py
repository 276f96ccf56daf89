"""The networks, each `Net(**config)` with its `config` kept; they know tensors and nothing else of ours."""

from torch import nn

from suite.nn.autoencoder import Autoencoder, Principal
from suite.nn.classifier import Classifier
from suite.nn.transformer import Transformer
from suite.nn.unet import UNet
from suite.nn.vocoder import Vocoder

NETWORKS: dict[str, type[nn.Module]] = {
    "autoencoder": Autoencoder,
    "classifier": Classifier,
    "principal": Principal,
    "transformer": Transformer,
    "unet": UNet,
    "vocoder": Vocoder,
}
