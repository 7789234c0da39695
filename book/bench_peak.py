"""The memory of a process while it works: for the parts of bench.py."""

import threading
from pathlib import Path


class AnonymousPeak:
    """The most anonymous memory of this process, in bytes, while the block runs. Linux only."""

    def __enter__(self):
        self.peak, self.done = 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self):
        while True:
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, int(status.split("RssAnon:")[1].split()[0]) * 1024)
            if self.done.wait(0.001):
                return

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
