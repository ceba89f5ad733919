"""OpenCV 4's importer of .caffemodel files, which shares no code with this project's reader; OpenCV 5 dropped it."""

import caffe_files as caffe
import numpy as np
import pytest
import torch

from vgg_reference.weights import load
from vggbench import weights_convert

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def cv2():
    found = pytest.importorskip("cv2", reason="OpenCV 4 is not installed: pip install 'opencv-python-headless>=4.8,<5'")
    if not hasattr(found.dnn, "readNetFromCaffe"):
        pytest.skip("OpenCV 5 has no reader of .caffemodel files any more")
    return found


@pytest.mark.parametrize("network", ["D", "E"])
@pytest.mark.parametrize("version", [1, 2])
def test_opencv_reads_the_same_file_and_gives_the_same_output(cv2, tmp_path, states, network, version):
    layers = caffe.as_caffe(states(network), network)
    path = caffe.write_caffemodel(tmp_path / "net.caffemodel", layers, version)
    found = weights_convert.convert(path, tmp_path / "out.safetensors")
    text = tmp_path / "net.prototxt"
    text.write_text(caffe.prototxt(network, layers, found.crop_size))
    image = torch.randn(1, 3, found.crop_size, found.crop_size, generator=torch.Generator().manual_seed(0))
    net = cv2.dnn.readNetFromCaffe(str(text), str(path))
    net.setInput(image.flip(1).numpy())
    with torch.inference_mode():
        ours = load(found)(image).numpy()
    theirs = net.forward()
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
