"""--batch and --sizes: from the command line to the profile that an engine is built with, and refused in one line."""

import dataclasses

import pytest
from backend_inputs import weights_of
from cli_runs import TINY, assert_one_line, run, weights_file
from fake_tensorrt import install
from typer.main import get_command

from vggbench import backends, runs_inputs, runs_numerics
from vggbench.backends import fake, tensorrt
from vggbench.cli import app
from vggbench.engines.profile import profile_for
from vggbench.errors import UsageError
from vggbench.sizes import Sizes, parse
from vggbench.variants import Variant

pytestmark = pytest.mark.usefixtures("one_cache")


def evaluate(photos, *more):
    tiny = ("--network", "A", "--weights", "random:0", *TINY)
    return run("evaluate", "--data", photos, *tiny, "--backend", "fake", "--quiet", *more)


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """Another backend, on the CPU, whose engines have a profile; the variants that were opened with it."""
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))
    opened = []

    def open_session(variant, device, threads):
        opened.append(variant)
        tensorrt.profile_of(variant)
        return fake.FakeSession(variant)

    monkeypatch.setitem(backends.BACKENDS, "fake", "vggbench.backends.fake")
    monkeypatch.setattr(fake, "open_session", open_session)
    monkeypatch.setattr(fake, "profile_of", tensorrt.profile_of, raising=False)
    return opened


def test_what_was_typed_reaches_the_sessions_of_both_forms(engine, photos):
    result = evaluate(
        photos, "--protocol", "multi-crop-and-dense", "--scales", "32,48,64", "--batch", "1:8:16",
        "--sizes", "32x48:40x64:80x128", "--images", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = {variant.form: str(tensorrt.profile_of(variant)) for variant in engine}
    assert found == {
        "crop": "batch 1:8:16 height 32:32:32 width 32:32:32",
        "dense": "batch 1:8:16 height 32:40:80 width 48:64:128",
    }


def test_a_trial_of_the_speed_has_the_engine_of_the_run(engine, photos, tmp_path):
    weights = f"A:256={weights_file(tmp_path)}"
    result = run("reproduce", "--dry-run", "--data", photos, "--weights", weights, "--out", tmp_path / "out",
                 "--backend", "fake", "--precision", "fp32", "--batch", 4, "--quiet")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert {variant.sizes for variant in engine} == {Sizes((4, 4, 4))}


@pytest.mark.parametrize("command", ["evaluate", "reproduce", "numerics"])
def test_backends_without_a_profile_refuse_them_in_one_line(command, photos, tmp_path):
    arguments = {
        "evaluate": ["--backend", "pytorch"],
        "reproduce": ["--backend", "pytorch", "--precision", "fp32", "--out", tmp_path / "out"],
        "numerics": ["--weights", weights_file(tmp_path), "--network", "A", "--reference", "fp32@pytorch", "--variant",
                     "fp32@onnxruntime"],
    }  # fmt: skip
    result = run(command, "--data", photos, *arguments[command], "--batch", "1:8:32", "--quiet")
    assert_one_line(result, UsageError.exit_code, "Asked was batch 1:8:32: accepted by backends that build an engine")


@pytest.mark.parametrize("command", ["evaluate", "reproduce"])
@pytest.mark.parametrize("asked", ["pixels", "floats"])
def test_backends_without_a_choice_of_input_refuse_one_in_one_line(command, asked, photos, tmp_path):
    out = ["--precision", "fp32", "--out", tmp_path / "out"] if command == "reproduce" else []
    result = run(command, "--data", photos, "--backend", "pytorch", *out, "--engine-input", asked, "--quiet")
    assert_one_line(result, UsageError.exit_code, f"Asked was engine input {asked}: accepted by backends whose engines")


def test_an_input_that_is_asked_for_reaches_the_sessions_and_else_the_backends_first_does(engine, photos, monkeypatch):
    monkeypatch.setattr(fake, "INPUTS", ("floats", "pixels"), raising=False)
    for scale, asked, wanted in ((32, [], "floats"), (48, ["--engine-input", "pixels", "--batch", "4"], "pixels")):
        assert evaluate(photos, "--protocol", "center", "--scale", scale, "--images", 1, *asked).exit_code == 0
        assert engine.pop().sizes == Sizes((4, 4, 4) if asked else None, input=wanted)
    assert_one_line(evaluate(photos, "--engine-input", "bytes"), 2, "No engine input 'bytes'. Known: floats, pixels.")
    assert tensorrt.INPUTS[0] == "pixels"


def test_a_session_from_python_refuses_them_at_the_same_place():
    variant = Variant(weights_of("A"), "crop", "onnxruntime", sizes=Sizes((1, 2, 3)))
    with pytest.raises(UsageError, match=r"onnxruntime takes any images\. Leave out --batch and --sizes"):
        backends.open_session(variant, "cpu", 1)
    with pytest.raises(UsageError, match="No backend 'caffe'"):
        backends.check_sizes("caffe", Sizes((1, 2, 3)))


def test_every_backend_with_a_profile_also_says_what_its_engines_are():
    profiled = [name for name in backends.BACKENDS if backends.has_profile(name)]
    assert profiled == ["torch-tensorrt", "tensorrt"]
    for name in profiled:
        assert hasattr(backends.module(name), "identity")
        assert backends.made_for_a_batch(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "8:4"], "Batch '8:4': accepted are N or MIN:OPT:MAX, from 1 on. Give --batch 1:8:32."),
        (["--batch", ""], "Batch '': accepted are"),
        (["--sizes", "64:x:96"], "Sizes '64:x:96': accepted are N or MIN:OPT:MAX, each a side or HEIGHTxWIDTH"),
        (["--sizes", "96:80:64"], "accepted are the least, the best and the greatest in this order"),
        (["--sizes", "16:80:96"], "Sizes 16:80:96: accepted are sides from 32 pixels on, the network's crop."),
        (["--sizes", "64:80:96", "--protocol", "center"], "Sizes 64:80:96: accepted in dense form alone"),
    ],
)
def test_sizes_that_cannot_be_are_one_line(engine, photos, arguments, message):
    assert_one_line(evaluate(photos, *arguments), 2, message)


def test_the_errors_of_a_profile_name_options_of_the_commands_that_run_into_them():
    """An image or a batch outside, met by evaluate, reproduce and numerics; latency builds for what it times."""
    for command in ("evaluate", "reproduce", "numerics"):
        assert {"--batch", "--sizes"} <= options_of(command)
    assert options_of("latency") & {"--batch", "--size", "--sizes"} == {"--batch", "--size"}
    with pytest.raises(UsageError, match=r"--sizes 64:80:120\.$"):
        profile_for(64, True, parse("1:2:4", "64:80:96")).check(120, 64)
    profile_for(64, True, parse("1:2:4", "64:80:120")).check(120, 64)
    with pytest.raises(UsageError, match=r"--batch 1:5:5\.$"):
        profile_for(64, False, parse("1:2:4", None)).check_batch(5)
    profile_for(64, False, parse("1:5:5", None)).check_batch(5)


def options_of(command):
    return {name for parameter in get_command(app).commands[command].params for name in parameter.opts}


def test_numerics_gives_them_to_the_variants_that_have_a_profile(monkeypatch, tmp_path):
    install(monkeypatch, "11.0.0")
    setting = runs_inputs.Setting("onnxruntime", threads=1)
    asked = runs_numerics.Asked(setting, "fp32@onnxruntime", ("fp16@tensorrt",), sizes=parse("1:4:8", None))
    found = runs_numerics.variants_of(None, weights_of("A"), asked)
    assert {each.backend: each.sizes for each in found} == {"onnxruntime": None, "tensorrt": Sizes((1, 4, 8))}
    crops = dataclasses.replace(asked, sizes=parse(None, "64:80:96"))
    with pytest.raises(UsageError, match="in dense form alone"):
        runs_numerics.variants_of(None, weights_of("A"), crops)


def test_an_engine_is_built_for_what_was_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path))
    install(monkeypatch, "11.0.0")
    variant = Variant(weights_of("A"), "dense", "tensorrt", sizes=parse("1:2:4", "64:80:96"))
    session = backends.open_session(variant, "cuda", 1)
    try:
        assert session.info["profile"] == "batch 1:2:4 height 64:80:96 width 64:80:96"
    finally:
        session.close()
    with pytest.raises(UsageError, match="sides from 64 pixels on"):
        backends.open_session(dataclasses.replace(variant, sizes=parse(None, "32:64:96")), "cuda", 1)
