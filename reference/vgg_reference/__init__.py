"""The networks of "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv 1409.1556)."""

from typing import TYPE_CHECKING, Any

from vgg_reference.architectures import ARCHITECTURES, Architecture, UnknownArchitecture, architecture

if TYPE_CHECKING:
    from vgg_reference.model import VGG, build

__all__ = ["ARCHITECTURES", "VGG", "Architecture", "UnknownArchitecture", "architecture", "build"]


def __getattr__(name: str) -> Any:
    """torch takes a second to import, and Table 1 as data does without: it is loaded with the first network."""
    if name in ("VGG", "build"):
        from vgg_reference import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
