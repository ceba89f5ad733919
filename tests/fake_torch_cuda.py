"""A stand-in for torch.cuda whose clock is made of numbers: what runs on it takes the seconds that it says."""

import contextlib
import types


class Event:
    def __init__(self, cuda, blocking):
        self.cuda, self.blocking, self.at = cuda, blocking, None

    def record(self, stream):
        self.cuda.now += self.cuda.tick
        self.at = self.cuda.now

    def synchronize(self):
        self.cuda.waits.append(self.cuda.launched)

    def elapsed_time(self, other):
        return 1000 * (other.at - self.at)


class Cuda:
    """Stands for torch.cuda: a call takes 1 second of its time, a replay of a graph half of one."""

    def __init__(self, capture_fails=False, tick=0.0):
        self.tick = tick
        self.now, self.launched, self.waits, self.events = 0.0, 0, [], []
        self.capture_fails, self.capturing = capture_fails, False

    def is_available(self):
        return False

    def Stream(self, device):
        return types.SimpleNamespace(synchronize=lambda: None)

    def stream(self, stream):
        return contextlib.nullcontext()

    def Event(self, enable_timing, blocking):
        assert enable_timing
        self.events.append(Event(self, blocking))
        return self.events[-1]

    def CUDAGraph(self):
        def replay():
            self.now += 0.5
            self.launched += 1

        return types.SimpleNamespace(replay=replay)

    def graph(self, graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"

        @contextlib.contextmanager
        def capture():
            if self.capture_fails:
                raise RuntimeError("operation not permitted when stream is capturing")
            before = self.now, self.launched
            yield
            self.now, self.launched = before  # while it is captured nothing runs

        return capture()

    def run(self, x):
        self.now += 1.0
        self.launched += 1
        return x.mean(dim=(2, 3))
