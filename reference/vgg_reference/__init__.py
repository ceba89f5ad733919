"""The networks of "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv 1409.1556)."""

from vgg_reference.architectures import ARCHITECTURES, Architecture, UnknownArchitecture, architecture
from vgg_reference.model import VGG, build

__all__ = ["ARCHITECTURES", "VGG", "Architecture", "UnknownArchitecture", "architecture", "build"]
