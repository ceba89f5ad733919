"""Views and small profiles for tests of engines that take pixels."""

import numpy as np

from vggbench.engines.profile import Profile
from vggbench.sizes import Sizes

SMALL = Profile((1, 2, 4), (64, 64, 64), (64, 64, 64))
#: As Variant.sizes.
PIXELS = Sizes(input="pixels")


def views(count, height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
