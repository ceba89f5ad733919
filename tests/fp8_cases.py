"""E4M3 written down from its definition, slowly, and FP8 graphs of the sample networks as ONNX Runtime runs them."""

from __future__ import annotations

from functools import cache

import numpy as np
from qdq_networks import drawn, fp8, sample

from vggbench.backends import ort
from vggbench.graphs import build_graph, export_onnx
from vggbench.variants import Variant


def decoded(code):
    """The value of an E4M3 code: sign, 4 bits of exponent with bias 7, 3 bits of mantissa; all ones is no number."""
    sign, exponent, mantissa = -1.0 if code >> 7 else 1.0, code >> 3 & 15, code & 7
    if (exponent, mantissa) == (15, 7):
        return np.nan
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


VALUES = np.array([decoded(code) for code in range(127)])  # of the codes 0 to 126: 0 to 448


def slowly(values, scale):
    """Codes of the nearest values; halfway the even code; beyond 448 the code of 448."""
    scaled = (values.astype(np.float32) / np.float32(scale)).astype(np.float64)
    size = np.minimum(np.abs(scaled), 448)
    above = np.searchsorted(VALUES, size)  # the first code whose value is not less
    below = np.maximum(above - 1, 0)
    up, down = VALUES[above] - size, size - VALUES[below]
    codes = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, below)
    return (codes + 128 * np.signbit(scaled)).astype(np.uint8)


def rounded(values, scale):
    codes = slowly(values, scale)
    return (VALUES[codes & 127] * np.where(codes >> 7, -1, 1)).astype(np.float32) * np.float32(scale)


def relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def session(graph, **options):
    return ort.inference_session(graph, threads=1, dense=True, pairs_as_they_stand=True, **options)


@cache
def model(network, form="crop"):
    return build_graph(fp8(sample(network), form))


def scores(network, batch, form="crop"):
    return session(model(network, form).SerializeToString()).run(["scores"], {"images": batch})[0]


@cache
def fp32_scores(network):
    graph = export_onnx(Variant(sample(network), "crop", "onnxruntime"))
    return session(graph).run(["scores"], {"images": drawn("test", 64)})[0]
