"""Table 1 as data against the paper's tables, and the counts that follow from it."""

import re

import pytest

from vgg_reference import ARCHITECTURES, Architecture, UnknownArchitecture, architecture
from vgg_reference.architectures import (
    Conv,
    count_macs,
    count_parameters,
    dense_macs,
    final_side,
    layer_sizes,
    pooled,
    receptive_fields,
)
from vggbench import paper

PAPER_NETWORKS = ("A", "A-LRN", "B", "C", "D", "E")


def spelled(network: Architecture, block: int) -> list[str]:
    """A block in Table 1's own words."""
    words = [f"conv{conv.kernel}-{conv.channels}" for conv in network.blocks[block]]
    return [words[0], "LRN", *words[1:]] if network.lrn and block == 0 else words


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_every_layer_is_the_one_of_table_1(name):
    rows = paper.table(1).rows
    assert len(ARCHITECTURES[name].blocks) == len(rows) == 5
    for row in rows:
        assert spelled(ARCHITECTURES[name], row["block"] - 1) == row[name]
        assert row["after"] == "maxpool"


def test_weight_layers_are_those_of_table_1():
    printed = paper._file()["tables"]["table1"]["weight_layers"]
    assert {name: ARCHITECTURES[name].weight_layers for name in PAPER_NETWORKS} == printed


def test_parameter_counts_are_those_of_table_2():
    for row in paper.table(2).rows:
        for name in row["configs"]:
            exact = count_parameters(ARCHITECTURES[name])
            assert exact == row["exact_params_computed"]
            assert round(exact / 1e6) == row["params_millions"]


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_exact_sizes_are_those_derived_from_the_paper(name):
    derived = paper._file()["derived"]["exact_sizes"][name]
    layers = layer_sizes(ARCHITECTURES[name])
    assert sum(layer.weights for layer in layers) == derived["weights"]
    assert sum(layer.biases for layer in layers) == derived["biases"]
    assert count_macs(ARCHITECTURES[name]) == derived["macs_224"]


def test_shallow_b_has_one_5x5_for_each_pair_of_3x3():
    blocks = ARCHITECTURES["shallow-B"].blocks
    pairs = ARCHITECTURES["B"].blocks
    assert all(len(block) == 1 and block[0].kernel == 5 for block in blocks)
    assert [block[0].channels for block in blocks] == [pair[-1].channels for pair in pairs]
    pools = [
        {f.name: f for f in receptive_fields(ARCHITECTURES[name]) if "pool" in f.name} for name in ("B", "shallow-B")
    ]
    assert pools[0] == pools[1]


def test_c_and_d_differ_only_in_the_kernel_of_the_third_layer():
    for c, d in zip(ARCHITECTURES["C"].blocks, ARCHITECTURES["D"].blocks, strict=True):
        assert c[:2] == d[:2]
        assert [conv.kernel for conv in c[2:]] == [1] * len(c[2:])
        assert [conv.channels for conv in c] == [conv.channels for conv in d]


def test_three_3x3_convolutions_see_7x7_and_two_see_5x5():
    stack = Architecture("stack", (tuple(Conv(3, 8) for _ in range(3)),))
    assert [field.size for field in receptive_fields(stack)[:3]] == [3, 5, 7]


def test_three_3x3_layers_have_27_parts_where_one_7x7_has_49():
    """Section 2.3: 27C^2 against 49C^2 weights."""
    channels = 64
    three = 3 * 3**2 * channels**2
    one = 7**2 * channels**2
    assert one / three == pytest.approx(1.81, abs=0.01)


def test_receptive_fields_of_d_are_those_of_arithmetic():
    fields = {field.name: (field.size, field.stride) for field in receptive_fields(ARCHITECTURES["D"])}
    assert fields["block1.conv2"] == (5, 1)
    assert fields["block1.pool"] == (6, 2)
    assert fields["block2.conv2"] == (14, 2)
    assert fields["block3.conv3"] == (40, 4)
    assert fields["block4.conv3"] == (92, 8)
    assert fields["block5.conv3"] == (196, 16)
    assert fields["block5.pool"] == (212, 32)


def test_batch_norm_adds_two_parameters_a_channel():
    channels = sum(conv.channels for _, conv in ARCHITECTURES["D"].convolutions)
    plain, normed = (count_parameters(architecture("D", norm)) for norm in (False, True))
    assert normed - plain == 2 * channels


def test_one_weight_less_in_a_kernel_changes_the_counts():
    wrong = Architecture("D", (*ARCHITECTURES["D"].blocks[:-1], (Conv(3, 512), Conv(3, 512), Conv(1, 512))))
    assert count_parameters(wrong) != count_parameters(ARCHITECTURES["D"])
    assert count_macs(wrong) != count_macs(ARCHITECTURES["D"])


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_dense_macs_of_a_crop_are_those_of_the_crop_form(name, ceil):
    assert dense_macs(ARCHITECTURES[name], 224, 224, ceil) == count_macs(ARCHITECTURES[name])


def test_dense_macs_grow_with_the_map():
    network = ARCHITECTURES["D"]
    floor, ceil = (dense_macs(network, 384, 500, rounding) for rounding in (False, True))
    assert count_macs(network) * 3 < floor < ceil


def test_a_pool_rounds_an_odd_side_down_or_up():
    assert [pooled(side, ceil) for side in (7, 8) for ceil in (False, True)] == [3, 4, 4, 4]


@pytest.mark.parametrize("crop", [0, 16, 31, 33, 225, -32])
def test_a_crop_that_does_not_halve_evenly_is_refused(crop):
    with pytest.raises(ValueError, match=r"multiples of 32"):
        final_side(crop)


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(UnknownArchitecture) as error:
        architecture("vgg16")
    assert re.search(r"No network 'vgg16'. Known: A, A-LRN, B, C, D, E, shallow-B\.", str(error.value))
