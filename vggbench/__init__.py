"""vggbench: reproduces the VGG paper (arXiv 1409.1556) and gates an inference stack on it."""

__version__ = "0.1.0"
