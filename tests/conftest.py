"""For all tests."""

from __future__ import annotations

import signal

import pytest

# Started in the background of a script, a process is born deaf to Ctrl-C, and so are its children: tests of Ctrl-C
# would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _hears_ctrl_c():
    """A command that was interrupted inside a test leaves Ctrl-C ignored, for its process would end there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder that no other test shares: tmp_path / "cache"."""
    monkeypatch.setenv("VGGBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def one_cache(module_cache, monkeypatch):
    """A cache folder that the tests of a file share, so that what one has computed the next one finds."""
    monkeypatch.setenv("VGGBENCH_CACHE", str(module_cache))
    return module_cache


@pytest.fixture(scope="module")
def processes():
    """Starts the processes of a run; tests/worker_processes.py."""
    import worker_processes

    with worker_processes.server() as started:
        yield started


@pytest.fixture(scope="module")
def browser():
    from browsers import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def states():
    """Network -> its state dict."""
    from weights_files import states_of

    return states_of()


@pytest.fixture(scope="module")
def val_images(tmp_path_factory):
    """imagenet_runs.COUNT made-up validation images of ImageNet: the folder to name."""
    from imagenet_runs import make_images

    return make_images(tmp_path_factory.mktemp("imagenet"))


@pytest.fixture(scope="module")
def small_d(tmp_path_factory):
    """A .caffemodel of a small D of 1000 classes."""
    from imagenet_runs import write_small

    return write_small(tmp_path_factory.mktemp("weights") / "d.caffemodel", "D")


@pytest.fixture
def server(own_cache, monkeypatch):
    """A server of one weights file; whoever downloads from it does not wait long."""
    from weights_server import Server

    from vggbench import weights_fetch

    monkeypatch.setattr(weights_fetch, "WAIT_SECONDS", 0.0)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    yield made
    made.stop()


# For tests that evaluate with the fake session; imported inside, for most tests need none of it.


@pytest.fixture
def with_fake(monkeypatch):
    """The fake is a backend like others."""
    from vggbench import backends

    monkeypatch.setitem(backends.BACKENDS, "fake", "vggbench.backends.fake")


@pytest.fixture
def moving(with_fake, monkeypatch):
    """The fake, whose answers move at bf16."""
    from numerics_networks import Moving

    from vggbench.backends import fake

    monkeypatch.setattr(fake, "open_session", lambda variant, device, threads: Moving(variant))


@pytest.fixture
def sessions(with_fake, monkeypatch):
    """Every fake session that was opened, with the shapes it was given."""
    from vggbench.backends import fake

    opened = []

    class Recording(fake.FakeSession):
        def __init__(self, variant, **options):
            super().__init__(variant, **options)
            self.shapes = []
            opened.append(self)

        def __call__(self, images):
            self.shapes.append(images.shape)
            return super().__call__(images)

    monkeypatch.setattr(fake, "open_session", lambda variant, device, threads: Recording(variant))
    return opened


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """cli_runs.EACH small images in each of cli_runs.CLASSES class folders."""
    import numpy as np
    from cli_runs import CLASSES, EACH
    from PIL import Image

    root = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / f"class{label}").mkdir()
        for number in range(EACH):
            array = pixels.integers(0, 256, (40 + number, 44, 3), dtype=np.uint8)
            Image.fromarray(array).save(root / f"class{label}" / f"{number}.jpg")
    return root


@pytest.fixture
def dataset(tmp_path):
    from measuring import make_dataset

    return make_dataset(tmp_path / "images", 40)


@pytest.fixture
def dozen(tmp_path):
    from measuring import make_dataset

    return make_dataset(tmp_path / "images", 12)


@pytest.fixture
def run(tmp_path, sessions):
    from measuring import MIXED, WEIGHTS

    from vggbench.measure.accuracy import run_passes

    def run(dataset, passes=MIXED.passes, **options):
        options = {"backend": "fake", "device": "cpu", "cache_root": tmp_path / "cache", **options}
        return run_passes(dataset, WEIGHTS, passes, **options)

    return run


@pytest.fixture
def opened():
    """A session of a variant of backend_inputs.make(); skips what does not work here."""
    from backend_inputs import make, session_of

    from vggbench.errors import BackendUnavailable

    def call(*args, **kwargs):
        try:
            return session_of(make(*args, **kwargs))
        except BackendUnavailable as error:
            pytest.skip(str(error))

    return call


# For tests that run engines on the fake GPU; tests/fake_tensorrt.py.


@pytest.fixture
def machine(monkeypatch):
    """A machine with a version of TensorRT; at the end nothing of its GPU may be left in use."""
    from fake_tensorrt import install

    made = []

    def become(version="11.0.0", **more):
        made.append(install(monkeypatch, version, **more))
        return made[-1]

    yield become
    for _, cuda, _ in made:
        assert not any(cuda.live.values()), f"not freed: {cuda.live}"


@pytest.fixture
def engines(machine):
    """Opens TensorRT's sessions of variants of backend_inputs.make() on that machine's GPU, closed at the end."""
    from backend_inputs import make

    from vggbench.backends import tensorrt
    from vggbench.engines.opening import Settings

    sessions = []

    def call(*args, profile=None, **kwargs):
        session = tensorrt.open_session(make(*args, **kwargs), "cuda", 2, Settings(profile=profile))
        sessions.append(session)
        return session

    yield call
    for session in sessions:
        session.close()
