"""An encoder of .caffemodel files of its own, and the prototxt beside it: nothing here is shared with the reader."""

import struct

import numpy as np

from vgg_reference.architectures import architecture


def varint(value):
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, payload):
    """A length-delimited field: bytes, or text."""
    payload = payload.encode() if isinstance(payload, str) else payload
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def number(field_number, value):
    return varint(field_number << 3) + varint(value)


def blob(array, version):
    """V2 says its shape in a BlobShape; V1 in num, channels, height, width, padded with ones in front."""
    data = field(5, np.ascontiguousarray(array, "<f4").tobytes())
    if version == 2:
        return field(7, field(1, b"".join(varint(side) for side in array.shape))) + data
    sides = (1,) * (4 - array.ndim) + array.shape
    return b"".join(number(i, side) for i, side in enumerate(sides, start=1)) + data


def layer(name, kind, blobs, version, bottom="", top=""):
    """kind: "Convolution" or "InnerProduct". V1 has it as an enum; the fields' order is caffe's own."""
    packed = [blob(array, version) for array in blobs]
    if version == 2:
        inner = field(1, name) + field(2, kind) + field(3, bottom) + field(4, top)
        return field(100, inner + b"".join(field(7, each) for each in packed))
    if version == 0:
        old = field(1, name) + field(2, kind) + b"".join(field(50, each) for each in packed)
        return field(2, field(1, old) + field(2, bottom) + field(3, top))
    kinds = {"Convolution": 4, "InnerProduct": 14, "ReLU": 18}
    inner = field(2, bottom) + field(3, top) + field(4, name) + number(5, kinds[kind])
    return field(2, inner + b"".join(field(6, each) for each in packed))


def names(network):
    """("conv1_1", "features.0"), ... in order, counted by hand: a convolution and its ReLU, a pool a block."""
    found, index = [], 0
    for b, block in enumerate(architecture(network).blocks, start=1):
        for c in range(1, len(block) + 1):
            found.append((f"conv{b}_{c}", f"features.{index}"))
            index += 2
        index += 1
    return [*found, ("fc6", "classifier.0"), ("fc7", "classifier.3"), ("fc8", "classifier.6")]


def as_caffe(state, network):
    """A state dict (RGB) as Caffe has it: layer -> weights, biases, the first layer's channels as BGR."""
    layers = {}
    for name, place in names(network):
        weight, bias = (state[f"{place}.{part}"].numpy() for part in ("weight", "bias"))
        layers[name] = (weight[:, ::-1] if name == "conv1_1" else weight, bias)
    return layers


def write_caffemodel(path, layers, version):
    """Written layer by layer; a ReLU without weights stands after each convolution, as in the real files."""
    with open(path, "wb") as file:
        file.write(field(1, "VGG_made_here"))
        for name, (weight, bias) in layers.items():
            kind = "Convolution" if name.startswith("conv") else "InnerProduct"
            file.write(layer(name, kind, (weight, bias), version, "data", name))
            if version == 1:
                file.write(layer(f"relu_{name}", "ReLU", (), version, name, name))
    return path


def prototxt(network, layers, crop):
    """What OpenCV needs beside the weights: the layers and their sizes, in Caffe's text form of today."""
    lines = ['name: "VGG"', 'input: "data"', *(f"input_dim: {side}" for side in (1, 3, crop, crop))]
    bottom = "data"

    def add(name, kind, settings="", top=None):
        nonlocal bottom
        top = top or name
        lines.append(f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {settings} }}')
        bottom = top

    for b, block in enumerate(architecture(network).blocks, start=1):
        for c, conv in enumerate(block, start=1):
            out = layers[f"conv{b}_{c}"][1].size
            sizes = f"num_output: {out} kernel_size: {conv.kernel} pad: {conv.padding}"
            add(f"conv{b}_{c}", "Convolution", f"convolution_param {{ {sizes} }}")
            add(f"relu{b}_{c}", "ReLU")
        add(f"pool{b}", "Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    for name in ("fc6", "fc7", "fc8"):
        add(name, "InnerProduct", f"inner_product_param {{ num_output: {layers[name][1].size} }}")
        if name != "fc8":
            add(f"relu_{name}", "ReLU")
    return "\n".join(lines)


def floats(values):
    """Floats one by one, not packed: what Caffe never writes."""
    return b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in values)
