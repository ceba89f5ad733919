"""Every test protocol a second time, slowly: loops and numpy in double precision, written from the paper's words alone.

It shares no code with the package. Only the resampling itself is Pillow's, called on the image as it is: a filter is
not what the paper is about. Sides and offsets round half to even, as Python's round does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

#: Table 1 once more: convolutions in each of the five blocks; every block ends in a max-pool of 2x2 and stride 2.
CONVOLUTIONS = {
    "A": (1, 1, 2, 2, 2),
    "A-LRN": (1, 1, 2, 2, 2),
    "B": (2, 2, 2, 2, 2),
    "C": (2, 2, 3, 3, 3),
    "D": (2, 2, 3, 3, 3),
    "E": (2, 2, 4, 4, 4),
    "shallow-B": (1, 1, 1, 1, 1),
}


@dataclass(frozen=True)
class Network:
    """tensors: convolutions (out, in, k, k) and three FC layers (out, in), each with its bias, in order.

    crop: side of a training crop. mean, factor: of the input's channels, from RGB 0-255. ceil: pools round up.
    """

    name: str
    tensors: list[tuple[np.ndarray, np.ndarray]]
    crop: int
    mean: tuple[float, ...]
    factor: tuple[float, ...]
    bgr: bool = False
    ceil: bool = True
    lrn_alpha: float = 1e-4


# ---- the network -----------------------------------------------------------------------------------------------------


def convolve(maps, weight, bias):
    """maps (c, h, w), zero padding that keeps the size, stride 1."""
    out, _, side, _ = weight.shape
    pad = (side - 1) // 2
    _, height, width = maps.shape
    padded = np.zeros((maps.shape[0], height + 2 * pad, width + 2 * pad))
    padded[:, pad : pad + height, pad : pad + width] = maps
    result = np.zeros((out, height, width))
    for row in range(side):
        for column in range(side):
            shifted = padded[:, row : row + height, column : column + width]
            result += np.tensordot(weight[:, :, row, column], shifted, axes=(1, 0))
    return result + bias[:, None, None]


def max_pool(maps, ceil):
    """2x2, stride 2. Rounding up, a window that sticks out at the far border takes what it covers."""
    channels, height, width = maps.shape
    rows = math.ceil(height / 2) if ceil else height // 2
    columns = math.ceil(width / 2) if ceil else width // 2
    result = np.empty((channels, rows, columns))
    for row in range(rows):
        for column in range(columns):
            window = maps[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            result[:, row, column] = window.max(axis=(1, 2))
    return result


def normalize_responses(maps, alpha):
    """Across five neighbouring channels, k = 1, beta = .75, alpha divided by the window, as in Caffe."""
    result = np.empty_like(maps)
    for channel in range(len(maps)):
        near = maps[max(channel - 2, 0) : channel + 3]
        result[channel] = maps[channel] / (1 + alpha / 5 * (near**2).sum(axis=0)) ** 0.75
    return result


def fully_connected_at(maps, row, column, side, layers):
    """The three FC layers on the side x side window at one position: scores (classes,)."""
    vector = maps[:, row : row + side, column : column + side].reshape(-1)
    for number, (weight, bias) in enumerate(layers):
        vector = weight @ vector + bias
        if number < 2:
            vector = np.maximum(vector, 0)
    return vector


def score_map(network, pixels):
    """pixels (h, w, 3), RGB 0-255 -> scores (rows, columns, classes): the FC layers at every position."""
    channels = [2, 1, 0] if network.bgr else [0, 1, 2]
    planes = np.stack([pixels[:, :, channel].astype(np.float64) for channel in channels])
    maps = (planes - np.reshape(network.mean, (3, 1, 1))) * np.reshape(network.factor, (3, 1, 1))
    layers = list(network.tensors)
    for block, count in enumerate(CONVOLUTIONS[network.name]):
        for index in range(count):
            maps = np.maximum(convolve(maps, *layers.pop(0)), 0)
            if network.name == "A-LRN" and block == index == 0:
                maps = normalize_responses(maps, network.lrn_alpha)
        maps = max_pool(maps, network.ceil)
    side = network.crop // 32
    _, height, width = maps.shape
    return np.array(
        [
            [fully_connected_at(maps, row, column, side, layers) for column in range(width - side + 1)]
            for row in range(height - side + 1)
        ]
    )


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


# ---- images ----------------------------------------------------------------------------------------------------------


def rescale(pixels, scale):
    """Isotropically, so that the shorter side is ``scale``; bicubic, antialiased."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    size = (round(width * scale / shorter), round(height * scale / shorter))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def mirror(pixels):
    return pixels[:, ::-1]


def crop_at(pixels, y, x, side):
    return pixels[round(y) : round(y) + side, round(x) : round(x) + side]


# ---- one image at one scale ------------------------------------------------------------------------------------------


def crop_posterior(network, pixels):
    scores = score_map(network, pixels)
    assert scores.shape[:2] == (1, 1)
    return softmax(scores[0, 0])


def center(network, pixels, scale):
    """One crop of the middle, not mirrored."""
    image = rescale(pixels, scale)
    height, width = image.shape[:2]
    middle = crop_at(image, (height - network.crop) / 2, (width - network.crop) / 2, network.crop)
    return crop_posterior(network, middle)


def ten_crop(network, pixels, scale):
    """Four corners of the whole rescaled image and its middle, each as it is and mirrored."""
    image = rescale(pixels, scale)
    bottom, right = image.shape[0] - network.crop, image.shape[1] - network.crop
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom / 2, right / 2)]
    return _mean_over_crops(network, image, places)


def multi_crop_one_scale(network, pixels, scale, extent="whole"):
    """A regular 5x5 grid, corner to corner of the whole rescaled image or of its middle square, with mirror images.

    The square is cut out first, at whole pixels, as GoogLeNet's were; the grid lies inside it.
    """
    image = rescale(pixels, scale)
    if extent == "square":
        side = min(image.shape[:2])
        image = crop_at(image, (image.shape[0] - side) / 2, (image.shape[1] - side) / 2, side)
    height, width = image.shape[:2]
    places = []
    for row in range(5):
        for column in range(5):
            places.append((row * (height - network.crop) / 4, column * (width - network.crop) / 4))
    return _mean_over_crops(network, image, places)


def _mean_over_crops(network, image, places):
    posteriors = []
    for y, x in places:
        crop = crop_at(image, y, x, network.crop)
        posteriors.append(crop_posterior(network, crop))
        posteriors.append(crop_posterior(network, mirror(crop)))
    return np.mean(posteriors, axis=0)


def dense(network, pixels, scale, score_pool="mean_logits"):
    """The class score map of the whole uncropped image, averaged over space; mean of the image and its mirror image."""
    image = rescale(pixels, scale)
    posteriors = []
    for view in (image, mirror(image)):
        scores = score_map(network, view)
        positions = [scores[row, column] for row in range(scores.shape[0]) for column in range(scores.shape[1])]
        if score_pool == "mean_logits":
            posteriors.append(softmax(np.mean(positions, axis=0)))
        else:
            posteriors.append(np.mean([softmax(position) for position in positions], axis=0))
    return (posteriors[0] + posteriors[1]) / 2


# ---- over scales and networks ----------------------------------------------------------------------------------------


def multi_scale(network, pixels, scales, score_pool="mean_logits"):
    return np.mean([dense(network, pixels, scale, score_pool) for scale in scales], axis=0)


def multi_crop(network, pixels, scales, extent="whole"):
    return np.mean([multi_crop_one_scale(network, pixels, scale, extent) for scale in scales], axis=0)


def multi_crop_and_dense(network, pixels, scales, score_pool="mean_logits", extent="whole"):
    """The mean of the two soft-max outputs."""
    crops, whole = multi_crop(network, pixels, scales, extent), multi_scale(network, pixels, scales, score_pool)
    return (crops + whole) / 2


def fusion(posteriors):
    """The mean of the networks' soft-max posteriors."""
    return np.mean(posteriors, axis=0)


def rank(posterior, label):
    """Classes that come before the true one; those with an equal posterior do."""
    return sum(1 for other in range(len(posterior)) if other != label and posterior[other] >= posterior[label])
