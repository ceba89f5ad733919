"""What a set of weights is, as data: its network, its sizes, the input it expects, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass

from vgg_reference.architectures import CROP_SIZE, NUM_CLASSES
from vgg_reference.model import LRN_ALPHA

#: The key of a safetensors file's metadata under which Weights stands as JSON.
METADATA_KEY = "vggbench"


class BadWeights(ValueError):
    """A weights file that cannot be used, in one line: what came, what is accepted, what to do."""


@dataclass(frozen=True)
class Preprocess:
    """From RGB 0-255 to a network's input: reorder channels, subtract mean, multiply by scale (per channel).

    mean and scale stand in the order of the network's own channels. Section 2.1: only a mean is subtracted.
    """

    order: str = "RGB"
    mean: tuple[float, float, float] = (123.68, 116.779, 103.939)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


#: The authors' models (their gists) and torchvision's, in terms of RGB 0-255.
PREPROCESSING = {
    "paper-rgb": Preprocess(),
    "paper-bgr": Preprocess("BGR", (103.939, 116.779, 123.68)),
    "torchvision": Preprocess(
        "RGB",
        (0.485 * 255, 0.456 * 255, 0.406 * 255),
        (1 / (0.229 * 255), 1 / (0.224 * 255), 1 / (0.225 * 255)),
    ),
}


@dataclass(frozen=True)
class Source:
    """The file that weights were converted from. sha1, sha256, md5: of its bytes, since publishers name one of them.

    by: the tool that converted it; done: what it did, in words.
    """

    file: str
    format: str
    bytes: int
    sha1: str
    sha256: str
    md5: str
    by: str
    done: str


@dataclass(frozen=True)
class Weights:
    """One set of weights of one network.

    name: "sample/D/[256;512]/seed0", "random:0" or a file's name. train_scale: the paper's S that they correspond
    to ("256", "384", "[256;512]"), or None. status: "authors" only for the paper's own weights, which alone can
    get a verdict on the paper's rows; "sample", "random", "other" else. digest: SHA-256 over names, shapes and
    bytes of all tensors. path: where the tensors lie; None for random weights. source: of converted weights.
    """

    name: str
    network: str
    width: float = 1.0
    hidden_width: float | None = None
    num_classes: int = NUM_CLASSES
    crop_size: int = CROP_SIZE
    batch_norm: bool = False
    lrn_alpha: float = LRN_ALPHA
    preprocess: Preprocess = Preprocess()
    train_scale: str | None = None
    status: str = "other"
    recipe: str = ""
    licence: str = ""
    digest: str = ""
    path: str | None = None
    seed: int | None = None
    source: Source | None = None

    @property
    def size(self) -> dict[str, float | int]:
        """Keyword arguments of layer_sizes() and count_macs()."""
        hidden = {} if self.hidden_width is None else {"hidden_width": self.hidden_width}
        return {"width": self.width, "num_classes": self.num_classes, "crop_size": self.crop_size, **hidden}
