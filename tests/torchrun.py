"""The commands as torchrun starts them, and images for them."""

import os
import subprocess
import sys
from pathlib import Path

import measuring
import worker_processes

ROOT = Path(__file__).parent.parent


def two_classes(folder: Path, each: int) -> Path:
    """So many images in each of two class folders."""
    for seed, name in enumerate(("cats", "dogs")):
        measuring.make_dataset(folder / name, each, seed)
    return folder


def started(world: int, cache: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """`python -m vggbench`, by torchrun where there are several workers. OMP_NUM_THREADS is torchrun's own unless it is
    among the variables."""
    start = ["-m", "vggbench"]
    if world > 1:
        port = f"--master-port={worker_processes.free_port()}"
        start = ["-m", "torch.distributed.run", f"--nproc-per-node={world}", port, *start]
    path = f"{ROOT}{os.pathsep}{ROOT / 'reference'}"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": path, "VGGBENCH_CACHE": str(cache), **variables}
    command = [sys.executable, *start, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
