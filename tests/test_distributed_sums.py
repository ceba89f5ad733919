"""torch's process group, made for a training's sums: nothing of it is left for the way out."""

import os
import subprocess
import sys
from pathlib import Path

import worker_processes

ROOT = Path(__file__).parent.parent
#: The import is what torch's first optimizer does in the middle of a training.
WORKER = """
import pathlib
from vggbench import distributed

def threads():
    return [(task / "comm").read_text().strip() for task in pathlib.Path("/proc/self/task").iterdir()]

with distributed.joined() as group:
    with distributed.summing(group, "cpu"):
        import torch
        import torch.distributed.nn.functional
        total = torch.ones(3) * (group.rank + 1)
        torch.distributed.all_reduce(total)
        assert any("gloo" in name for name in threads()), threads()
    left = [name for name in threads() if "gloo" in name]
    print(total.tolist(), left)
"""


def test_gloos_threads_end_with_the_sums():
    port = worker_processes.free_port()
    path = f"{ROOT}{os.pathsep}{ROOT / 'reference'}"
    variables = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=os.environ | variables | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for worker in workers:
            out, err = worker.communicate(timeout=600)
            assert worker.returncode == 0, err
            assert out == "[3.0, 3.0, 3.0] []\n"
    finally:
        for worker in workers:  # one waits minutes for another that failed
            worker.kill()
            worker.wait()
