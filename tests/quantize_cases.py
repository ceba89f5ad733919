"""What the tests of calibration share."""

import dataclasses

import measuring

WEIGHTS = measuring.WEIGHTS  # A, 1/64 of the width, crops of 32
#: Images of a data set.
COUNT = 11


def reordered(dataset, order):
    images = tuple(dataset.images[index] for index in order)
    return dataclasses.replace(dataset, images=images, digests=tuple(dataset.digests[index] for index in order))


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    assert [part for part in parts if part not in text] == []
