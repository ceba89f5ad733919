"""What each layer of an engine ran in: from the inspector's words to the record, the terminal and the page."""

from __future__ import annotations

import json
import re
import types
from pathlib import Path

import pytest
from backend_inputs import make, weights_of
from browsers import chromium
from fake_tensorrt import install
from measuring import make_dataset
from page_fixtures import HOSTILE, MACHINE
from typer.testing import CliRunner

from vggbench import cli, runs_latency
from vggbench.backends import tensorrt
from vggbench.cli_common import warn_of_fallbacks
from vggbench.engines import layers
from vggbench.measure.accuracy import run_passes
from vggbench.measure.records import accuracy_record
from vggbench.protocols import Choices, protocol
from vggbench.report import context_from, render, write_page
from vggbench.report.engine_layers import OPEN_ROWS, engines
from vggbench.results import NetworkRun, Record, Samples, Workload
from vggbench.results_engines import fallback_line
from vggbench.runs_timing import Task, time_variant

DATA = Path(__file__).parent / "data"
NAMES = ["block1.conv1", "fc6"]
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "cache"))


def inspected(text, names=NAMES):
    """layers_of an engine whose inspector says so."""
    inspector = types.SimpleNamespace(get_engine_information=lambda form: text)
    trt = types.SimpleNamespace(LayerInformationFormat=types.SimpleNamespace(JSON="json"))
    return layers.layers_of(trt, types.SimpleNamespace(create_engine_inspector=lambda: inspector), None, names)


def recorded(version, names=NAMES):
    return inspected((DATA / f"inspector_{version}.json").read_text(encoding="utf-8"), names)


def said(version, precision, names=NAMES):
    return layers.described(recorded(version), names, precision, "abc123", "batch 8:8:8")


def run_of(session, backend="tensorrt", precision="int8"):
    return NetworkRun(network="D", weights={"name": "random:0", "digest": "d"}, passes=[], backend=backend,
                      precision=precision, session={"device": "cuda:0", **session})  # fmt: skip


def record_of(run, **changes):
    return Record(kind="latency", networks=[run], workload=Workload(batch=8, size=[64, 64]), environment=MACHINE,
                  samples=Samples(unit="seconds", values=[0.1]), **changes)  # fmt: skip


def page_of(*records):
    return render(list(records), [], context_from(list(records)))


# The inspector's words


def test_8_6_says_types_tactics_and_what_was_fused():
    reformat, first, pool, fc6 = recorded("8.6")
    assert (reformat.names, reformat.members, reformat.precision, reformat.output) == ((), (), "fp32", "int8")
    assert (first.names, first.precision, first.output) == (("block1.conv1",), "int8", "int8")
    assert first.members == ("block1.conv1.weight.quantize", "block1.conv1", "block1.relu1")
    assert first.tactic.startswith("sm80_xmma_fprop_first_layer_i8i8")
    assert (pool.names, pool.members, pool.kind) == ((), ("block1.pool",), "CaskPooling")
    assert (fc6.names, fc6.precision) == (("fc6",), "fp32")
    assert layers.fallbacks(recorded("8.6"), NAMES, "int8") == ["fc6 in fp32"]


def test_10_says_them_with_names_of_its_own():
    first, fc6, cast = recorded("10")
    assert (first.names, first.precision, first.members) == (
        ("block1.conv1",),
        "fp16",
        ("block1.conv1", "block1.relu1"),
    )
    assert (fc6.names, fc6.precision, fc6.output, fc6.members) == (("fc6",), "fp32", "fp16", ("fc6.relu", "fc6"))
    assert (cast.names, cast.precision, cast.output) == ((), "fp16", "fp32")
    assert [layer.names for layer in recorded("10", None)] == [("block1.conv1",), ("fc6",), ()], "by their names alone"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Layers": null}', '{"Layers": [7, null]}', "null"])
def test_words_that_cannot_be_read_are_no_layers_and_no_error(text):
    assert inspected(text.replace("null}", "[]}")) == []


# The record


@pytest.mark.parametrize(("version", "precision", "rows"), [("8.6", "int8", 4), ("10", "fp16", 3)])
def test_a_record_has_typed_engines_and_is_read_back_as_it_was(version, precision, rows):
    record = record_of(run_of(said(version, precision), precision=precision))
    ((engine,),) = [run.engines for run in record.networks]
    assert "layers" not in record.networks[0].session
    assert (engine.engine, engine.profile, engine.precision, engine.asked) == ("abc123", "batch 8:8:8", precision, 2)
    assert len(engine.layers) == rows
    assert engine.fallbacks == ["fc6 in fp32"]
    assert record.networks[0].session["fallbacks"] == "fc6 in fp32"
    assert record.networks[0].session["arithmetic"] == "mixed: 1 of 2 layers fell back"
    assert Record.model_validate_json(record.model_dump_json()) == record
    assert len(record.networks[0].model_dump_json()) < 3000


def test_an_earlier_record_s_text_becomes_an_engine_too_and_what_is_none_stays():
    (engine,) = run_of({"layers": '[["fc6","fp16","CaskGemm","t"]]', "precision": "fp16"}).engines
    assert (engine.precision, engine.layers[0].name, engine.layers[0].tactic) == ("fp16", "fc6", "t")
    for odd in (
        "many",
        16,
        '{"rows": []}',
        "[7]",
        "7",
        '["ab"]',
        ["x"],
        '[["a","b","c","d","e",["f"],0,"more"]]',
        None,
    ):
        run = run_of({"layers": odd})
        assert (run.session.get("layers") == odd) != bool(run.engines)
    plain = run_of({}, backend="pytorch")
    assert "engines" not in json.loads(plain.model_dump_json())


@pytest.fixture
def evaluated(monkeypatch, tmp_path):
    """A record of crop and dense passes by engines that fall back, and the shards that were written."""
    install(monkeypatch, "10.16.1", fall_back={"fc8"})
    dataset = make_dataset(tmp_path / "images", 40)
    steps = [*protocol("center", (73,)).passes, *protocol("dense", (73,)).passes]
    options = {"backend": "tensorrt", "precision": "fp16", "device": "cuda", "threads": 1, "on_bad": "skip"}

    def run():
        results = run_passes(dataset, weights_of("A"), steps, **options)
        tested = protocol("center", (73,))
        return accuracy_record(dataset, [(results, tested)], choices=Choices(), environment={})

    return run, tmp_path / "cache"


def test_an_evaluation_keeps_layers_once_an_engine_and_not_once_a_block(evaluated):
    run, cache = evaluated
    (first,) = run().networks
    assert [len(engine.layers) for engine in first.engines] == [11, 11]
    assert {engine.profile.split()[1] for engine in first.engines} == {"1:1:1", "1:32:64"}, "crop form and dense form"
    assert {tuple(engine.fallbacks) for engine in first.engines} == {("fc8 in fp32",)}
    shards = list((cache / "posteriors").glob("*/*.safetensors"))
    assert len(shards) == 2
    for shard in shards:
        head = shard.read_bytes()
        assert head.count(b"__metadata__") == head.count(b"CaskConvolution") / 11 == 1
    (again,) = run().networks
    assert again.engines == first.engines, "from the cache, where no session is opened"


def test_timings_and_engines_beside_them_say_their_layers(monkeypatch):
    install(monkeypatch, "8.6.0", fall_back={"block2.conv1", "fc8"})
    task = Task(make("tensorrt", precision="int8"), (1, 4), (64, 64), "cuda", 1, min_seconds=0.0)
    records = time_variant(task)
    for record in records:
        (engine,) = record.networks[0].engines
        assert engine.fallbacks == ["block2.conv1 in fp32", "fc8 in fp32"]
        assert engine.profile.startswith(f"batch {record.workload.batch}:")
    assert fallback_line(records) == (
        "Layers ran in a wider type than was asked for; A int8 tensorrt: block2.conv1 in fp32, fc8 in fp32."
    )


def test_a_plan_of_torch_tensorrt_s_says_what_it_can_in_the_native_runner(monkeypatch):
    from vggbench.backends.native_plan import NativePlan

    install(monkeypatch, "11.0.0")
    session = tensorrt.open_session(make("tensorrt", precision="fp16"), "cuda", 1)
    runner = session._runner
    plan = bytes(json.dumps(runner.engine._plan), "ascii") + b"\n" + runner.engine._model.SerializeToString()
    session.close()
    with NativePlan(make("torch-tensorrt", precision="fp16"), plan, {"backend": "torch-tensorrt"}, 1.0) as native:
        (engine,) = run_of(native.info, "torch-tensorrt", "fp16").engines
    assert (engine.asked, len(engine.layers), engine.fallbacks) == (0, 11, [])
    assert {layer.precision for layer in engine.layers} == {"fp16"}
    html = page_of(record_of(run_of(native.info, "torch-tensorrt", "fp16")))
    assert "which of the network&#39;s they are is not known" in html.replace("'", "&#39;")


# The terminal


def test_evaluate_warns_once_on_standard_error(monkeypatch, tmp_path):
    install(monkeypatch, "11.0.0", fall_back={"fc8"})
    for name in ("one", "two"):
        make_dataset(tmp_path / "images" / name, 1)
    command = ["evaluate", "--data", str(tmp_path / "images"), "--network", "A", "--weights", "random:0",
               "--width", "0.125", "--crop-size", "64", "--backend", "tensorrt", "--precision", "fp16",
               "--images", "2", "--quiet", "--protocol", "center"]  # fmt: skip
    for more in ([], ["--json"]):  # the second from the cache: nothing is opened
        result = CliRunner().invoke(cli.app, [*command, *more])
        assert result.exit_code == 0, result.output
        lines = [line for line in result.stderr.splitlines() if "wider" in line]
        assert lines == ["vggbench: Layers ran in a wider type than was asked for; A fp16 tensorrt: fc8 in fp32."]


def test_latency_warns_once_whatever_the_number_of_processes_and_batches(monkeypatch):
    install(monkeypatch, "10.16.1", fall_back={"fc8"})
    monkeypatch.setattr(runs_latency, "in_fresh_process", lambda work, *arguments: work(*arguments))
    command = ["latency", "--network", "A", "--weights", "sample", "--precision", "fp16", "--backend", "tensorrt",
               "--batch", "1,2", "--processes", "2", "--min-seconds", "0", "--no-peak", "--device", "cuda"]  # fmt: skip
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("wider type") == 1
    assert "A fp16 tensorrt: fc8 in fp32." in result.stderr


def test_without_a_fallback_nothing_is_said(capsys):
    warn_of_fallbacks([record_of(run_of({})), record_of(run_of(said("8.6", "fp32"), precision="fp32"))])
    assert capsys.readouterr() == ("", "")


# The page


def test_the_page_has_a_table_an_engine_with_fallbacks_counted_and_marked():
    first, again = record_of(run_of(said("8.6", "int8"))), record_of(run_of(said("8.6", "int8")), process=2)
    other = record_of(run_of(said("10", "fp16"), precision="fp16"))
    shown = engines([first, again, other])
    assert [len(each.anchors) for each in shown] == [2, 1], "one engine, whatever number of records it gave"
    html = page_of(first, again, other)
    assert 'id="engine-layers"' in html
    assert "Layers of 2 of them fell back" in html
    assert html.count("1 of 2 layers with weights run wider than INT8: fc6 in fp32.") == 1
    section = html[html.index('id="engine-layers"') : html.index('id="networks"')]
    assert section.count('<table class="sortable">') == 2
    assert section.count('class="missed">FP32 <span class="badge not-shown">fell back</span>') == 2
    assert re.search(r'class="file">block1\.conv1\.weight\.quantize, block1\.conv1, block1\.relu1</td>', section)
    assert "4, under What each layer ran in" in html[html.index('id="records"') :]
    assert "sm80_xmma_fprop_first_layer" not in html[html.index('id="records"') :]


def test_a_long_table_is_closed_and_no_engine_is_no_section():
    def many(count):
        rows = [layers.Layer(f"l{n}", "k", (), "fp16", "", "t") for n in range(count)]
        return record_of(run_of(layers.described(rows, (), "fp16", "k", "p"), precision="fp16"))

    assert page_of(many(OPEN_ROWS)).count('id="engine-1-layers" open>') == 1
    assert page_of(many(OPEN_ROWS + 1)).count('id="engine-1-layers">') == 1
    assert 'id="engine-layers"' not in page_of(record_of(run_of({}, backend="pytorch")))
    unsaid = [layers.Layer("fc6 + fc6.relu", "", ("fc6",), "", "", "")]
    html = page_of(record_of(run_of(layers.described(unsaid, ["fc6"], "fp16", "k", "p"), precision="fp16")))
    assert "built without telling what its layers run in" in html


def evil_record():
    entry = {"Name": EVIL, "LayerType": EVIL, "Inputs": [{"Format/Datatype": "Float"}], "TacticName": EVIL,
             "Metadata": f"[ONNX Layer: {EVIL}]"}  # fmt: skip
    found = [layers._layer(entry, []), layers.Layer("x", EVIL, (EVIL,), "fp32", "", EVIL, "fp32", (EVIL, EVIL))]
    run = run_of(layers.described(found, [EVIL], "int8", EVIL, EVIL) | {"runner": EVIL, "tensorrt": EVIL})
    return record_of(run.model_copy(update={"weights": {"name": EVIL, "digest": "d"}}))


def test_an_evil_layer_name_is_text_on_the_page():
    html = page_of(evil_record())
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") > 8


def test_in_a_browser_it_is_text_and_the_table_sorts(tmp_path):
    path = tmp_path / "index.html"
    write_page(path, page_of(evil_record(), record_of(run_of(said("8.6", "int8")))))
    with chromium() as browser:
        page = browser.new_page()
        dialogs, complaints = [], []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(path.as_uri())
        assert page.locator("img[src='x']").count() == 0
        assert page.locator(f"#engine-1 th.file:text-is('{EVIL}')").count() == 2
        head = page.locator("#engine-2 thead th").nth(2).locator("button")
        head.click()
        assert page.locator("#engine-2 tbody tr td:nth-child(3)").first.inner_text().startswith("FP32")
        assert page.locator("#engine-2 .missed").is_visible()
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.close()
    assert (dialogs, complaints) == ([], [])
    assert HOSTILE.startswith(EVIL)
