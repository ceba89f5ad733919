"""`reproduce` on ImageNet measures what other people's figures of the same files need, and the page holds both."""

import dataclasses
import re

import pytest
from imagenet_runs import COUNT, document, reproduce, write_small
from weights_files import as_published

from vggbench import progress, runs_inputs
from vggbench.report import rows
from vggbench.results import read_records

pytestmark = pytest.mark.usefixtures("one_cache")


@pytest.fixture
def authors(small_d, monkeypatch):
    """The file is the authors' D, for its digest is the published one."""
    as_published(monkeypatch, small_d)
    return small_d


def others(found):
    return [row for row in found["rows"] if row["claim"] is None]


def test_the_center_crop_of_the_authors_file_stands_beside_every_figure_of_it(val_images, authors, tmp_path):
    found = document(reproduce(val_images, tmp_path, "--weights", f"D={authors}", "--anchors", "only", "--json"))
    (row,) = found["rows"]
    assert (row["claim"], row["protocol"], row["scales"], row["images"]) == (None, "center", [256], COUNT)
    assert found["missing"] == []
    assert {beside["who"].split(" ")[0] for beside in row["anchors"]} >= {"MatConvNet", "keras.io", "tensorflow/models"}
    reasons = {(beside["kind"], beside["reason"]) for beside in row["anchors"]}
    assert reasons == {("not comparable", f"{COUNT} of the 50,000 validation images")}
    page = (tmp_path / "index.html").read_text()
    section = page[page.index('id="anchors"') : page.index('id="others"')]
    assert "MatConvNet pretrained page" in section
    assert f"{COUNT} of the 50,000 validation images" in section
    assert "views were measured that other people&#39;s figures of these files need" in page


def test_on_all_images_it_gets_a_verdict_in_the_terminal_and_on_the_page(val_images, authors, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "IMAGENET_IMAGES", COUNT)
    how = ("--weights", f"D={authors}", "--anchors", "only")
    result = reproduce(val_images, tmp_path, *how)
    assert result.exit_code == 0, result.output
    judged = [line for line in result.stdout.splitlines() if line.startswith("not reproduced: ")]
    assert any("MatConvNet pretrained page" in line and "top-1 28.5 %, top-5 9.9 %" in line for line in judged)
    assert any("keras" in line for line in judged)
    assert all("differs in top-1 by +" in line and "Likely: labels in another class order" in line for line in judged)
    assert "D/[256;512] (center crop)" in result.stdout
    assert "not reproduced" in re.sub("<[^>]+>", " ", (tmp_path / "index.html").read_text())


def test_beside_the_papers_rows_it_is_one_more_row_and_its_record_is_that_of_evaluate(val_images, authors, tmp_path):
    found = document(
        reproduce(val_images, tmp_path, "--weights", f"D={authors}", "--anchors", "center", "--table", 3, "--json")
    )
    assert [row["claim"] for row in found["rows"]] == ["table3/D/[256;512]", None]
    (record,) = [record for record in read_records(tmp_path / "records.jsonl") if record.claim is None]
    assert record.networks[0].passes == [{"form": "crop", "scale": 256, "grid": "center", "flip": False}]


def test_chosen_tables_leave_it_out_unless_asked_and_none_always(val_images, authors, tmp_path):
    how = ("--weights", f"D={authors}", "--dry-run", "--json")
    for more, center in [
        ((), 1),
        (("--anchors", "none"), 0),
        (("--table", 4), 0),
        (("--table", 4, "--anchors", "center"), 1),
    ]:
        found = document(reproduce(val_images, tmp_path, *how, *more))
        assert found["other_rows"] == center, more
        assert ("center crop at 256" in found["networks"][0]["passes"]) == bool(center)


def test_torchvisions_file_is_cropped_from_images_that_its_own_filter_rescaled(val_images, tmp_path, monkeypatch):
    file = write_small(tmp_path / "a.pth", "A")
    as_published(monkeypatch, file, "vgg11")
    monkeypatch.setattr(rows, "IMAGENET_IMAGES", COUNT)
    found = document(
        reproduce(val_images, tmp_path, "--weights", f"A:256={file}", "--table", 3, "--anchors", "center", "--json")
    )
    paper, beside = found["rows"]
    assert (paper["claim"], paper["choices"]["resize_filter"]) == ("table3/A/256", "bicubic")
    assert (beside["claim"], beside["choices"]["resize_filter"]) == (None, "bilinear")
    assert [(each["who"], each["kind"]) for each in beside["anchors"]] == [("torchvision", "not reproduced")]


def test_files_stated_to_be_the_authors_are_of_their_training_scale(val_images, tmp_path, monkeypatch):
    unknown = write_small(tmp_path / "unknown.caffemodel", "D", seed=3)
    monkeypatch.setattr(rows, "IMAGENET_IMAGES", COUNT)
    how = ("--weights", f"D={unknown}", "--authors-weights", "--table", 3, "--anchors", "center")
    paper, beside = document(reproduce(val_images, tmp_path, *how, "--json"))["rows"]
    # Its views are those of a 32-pixel network, which is all that is not the paper's.
    assert paper["verdict"]["reason"] == "other scales or views than the paper's protocol"
    assert {each["kind"] for each in beside["anchors"]} == {"not reproduced"}
    assert beside["row"] == "center/D/[256;512]"


def test_unknown_files_and_other_images_have_no_figures(val_images, authors, tmp_path):
    unknown = write_small(tmp_path / "unknown.caffemodel", "D", seed=2)
    result = reproduce(val_images, tmp_path, "--weights", f"D={unknown}", "--anchors", "only")
    assert result.exit_code == 2
    assert "no figure of others is known for them and these images" in result.stderr
    setting = runs_inputs.setting(backend="pytorch")
    request = runs_inputs.Request(setting, str(val_images), weights={("D", None): str(authors)})
    dataset = runs_inputs.dataset_of(request, progress.silent)
    counts = [
        sum(row.claim is None for row in runs_inputs.plan_of(request, each).rows)
        for each in (
            dataset,
            dataclasses.replace(dataset, name="ImageNet-V2 (matched-frequency)"),
            dataclasses.replace(dataset, label_set="ReaL"),
        )
    ]
    assert counts == [1, 0, 0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--anchors", "some"), "No anchors 'some'. Known: center, all, only, none."),
        (("--anchors", "only", "--table", 3), "Both --table and --anchors only were given."),
    ],
)
def test_a_mistake_in_the_asking_is_told_before_the_images_are_read(tmp_path, more, words):
    result = reproduce(tmp_path / "not there", tmp_path, "--weights", "D=x", *more)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
