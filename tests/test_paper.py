"""Every row of the tables file is there once, with the file's own figures."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources

import pytest

from vggbench import paper, protocols
from vggbench.questions import QUESTIONS, label

FILE = json.loads(resources.files("vggbench").joinpath("paper_tables.json").read_text(encoding="utf-8"))
CLAIMS = paper.claims()


def _rows(number):
    return FILE["tables"][f"table{number}"]["rows"]


def test_every_row_of_tables_3_to_6_is_one_claim_in_the_papers_order():
    for number in (3, 4, 5, 6):
        found = [claim for claim in CLAIMS if claim.table == number]
        assert len(found) == len(_rows(number))
        for claim, row in zip(found, _rows(number), strict=True):
            assert claim.top1_error_percent == row["top1_val_error"]
            assert claim.top5_error_percent == row["top5_val_error"]
            assert claim.top5_test_error_percent == row.get("top5_test_error")
            models = row.get("models", [row])
            assert [entry.network for entry in claim.entries] == [model["config"] for model in models]
            assert [entry.train_scale for entry in claim.entries] == [model["train_S"] for model in models]
            assert [list(entry.test_scales) for entry in claim.entries] == [model["test_Q"] for model in models]
    assert [claim.table for claim in CLAIMS] == sorted(claim.table for claim in CLAIMS)


def test_claim_ids_are_unique():
    assert Counter(claim.id for claim in CLAIMS).most_common(1)[0][1] == 1


def test_every_row_of_tables_7_to_12_is_quoted_once_with_its_own_figures():
    quoted = paper.quoted()
    for number in range(7, 13):
        found = [row for row in quoted if row.table == number]
        assert len(found) == len(_rows(number))
        for row, printed in zip(found, _rows(number), strict=True):
            assert row.label
            assert row.needs
            for key, value in row.values.items():
                assert value == printed.get(key)
            assert any(value is not None for value in row.values.values())
    assert len(quoted) == sum(len(_rows(number)) for number in range(7, 13))


def test_quoted_rows_keep_every_figure_that_a_column_holds():
    for number in range(7, 13):
        columns = {column["key"] for column in FILE["tables"][f"table{number}"]["columns"]}
        for row, printed in zip([r for r in paper.quoted() if r.table == number], _rows(number), strict=True):
            numbers = {key for key in columns if isinstance(printed.get(key), (int, float, dict))}
            assert numbers <= set(row.values)


def test_other_systems_are_not_taken_for_this_papers():
    ours = [row.label for row in paper.quoted() if row.table == 7 and row.this_paper]
    assert ours
    assert all("VGG" in name for name in ours)
    assert not any(row.this_paper for row in paper.quoted() if "GoogLeNet" in row.label)


def test_only_the_jittered_d_and_e_have_public_weights():
    for claim in CLAIMS:
        public = all(entry.network in "DE" and entry.train_scale == "[256;512]" for entry in claim.entries)
        assert claim.has_public_weights is public
    # Two rows of Table 3, two of Table 4, all of Table 5, rows 2-4 of Table 6.
    assert Counter(claim.table for claim in CLAIMS if claim.has_public_weights) == {3: 2, 4: 2, 5: 6, 6: 3}


def test_the_protocol_of_a_claim_has_the_scales_that_are_printed():
    for claim in CLAIMS:
        for entry in claim.entries:
            passes = protocols.protocol_for(claim, entry).passes
            assert sorted({step.scale for step in passes}) == sorted(entry.test_scales)
            forms = {"dense": {"dense"}, "multi-crop": {"crop"}, "multi-crop & dense": {"dense", "crop"}}
            assert {step.form for step in passes} == forms[claim.technique]
            assert len(passes) == len(entry.test_scales) * len(forms[claim.technique])
            assert all(step.flip for step in passes)


def test_table_3_is_dense_at_one_scale_and_table_5_uses_150_crops():
    for claim in CLAIMS:
        chosen = protocols.protocol_for(claim, claim.entries[0])
        if claim.table == 3:
            assert chosen.name == "dense"
        if claim.table == 5 and claim.technique == "multi-crop":
            assert sum(step.views for step in chosen.passes) == 150


def test_a_jittered_network_is_tested_at_the_middle_scale_alone_and_at_both_ends():
    by_id = {claim.id: claim for claim in CLAIMS}
    for table, name in ((3, "dense"), (4, "multi-scale")):
        entry = by_id[f"table{table}/D/[256;512]"].entries[0]
        assert protocols.default_scales(name, entry.train_scale, 224) == entry.test_scales


def test_the_default_scales_are_the_papers_for_every_training_scale():
    for claim in CLAIMS:
        for entry in claim.entries:
            name = protocols.protocol_for(claim, entry).name
            assert protocols.default_scales(name, entry.train_scale, 224) == entry.test_scales


def test_scales_shrink_with_the_crop():
    assert [protocols.scaled(scale, 64) for scale in (224, 256, 288, 352, 384, 416, 512)] == [
        64, 73, 82, 101, 110, 119, 146,
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(1, 13))
def test_every_table_can_be_asked_for(number):
    table = paper.table(number)
    assert table.number == number
    assert table.about
    assert len(table.rows) == len(_rows(number))


def test_an_unknown_table_is_refused():
    with pytest.raises(KeyError):
        paper.table(13)


def test_findings_name_rows_that_are_there_and_the_papers_figures_agree_with_each():
    """What the paper prints lies in the direction that its finding says, averaged as the finding averages."""
    printed = {claim.id: claim.top1_error_percent for claim in CLAIMS}
    for question in QUESTIONS:
        for group in question.each:
            keys = [key for contrast in group for key in (contrast.a, contrast.b)]
            assert all(label(key) for key in keys)
            if question.id == "small-filters":  # section 4.1 has it in a sentence, no table
                assert not any(key in printed for key in keys)
                continue
            mean = sum(printed[contrast.a] - printed[contrast.b] for contrast in group) / len(group)
            assert abs(mean) < 1 if question.kind == "equal" else mean > 0, question.id
    assert len({question.id for question in QUESTIONS}) == len(QUESTIONS)
