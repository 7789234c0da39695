"""`nanoserve chat` as a user meets it: in a terminal, stopped in the middle and gone on."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from nanoserve.checkpoints import DEFAULT, checkpoint_path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "nanoserve", "chat", "--temperature", "0"]
QUESTION = "What is the capital of France?"
PARIS = "The capital of France is Paris."


class Terminal:
    """The command in a pseudo-terminal, and what it has written there."""

    def __init__(self, *arguments: str):
        self.end, theirs = pty.openpty()
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        environment = os.environ | {"TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [*COMMAND, "--checkpoint", str(checkpoint_path(DEFAULT)), *arguments],
            cwd=ROOT,
            env=environment,
            start_new_session=True,
            **pipes,
        )
        os.close(theirs)
        self.seen = b""

    def until(self, pattern: str, seconds: float = 120) -> str:
        """What has come when `pattern` has, and is taken off."""
        late = time.monotonic() + seconds
        while not (found := re.search(pattern.encode(), self.seen, re.DOTALL)):
            assert time.monotonic() < late, self.seen.decode("utf-8", "replace")
            if not select.select([self.end], [], [], 1)[0]:
                continue
            try:
                self.seen += os.read(self.end, 4096)
            except OSError:  # it has ended
                assert re.search(pattern.encode(), self.seen, re.DOTALL), self.seen
        taken, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return taken.decode().replace("\r\n", "\n")

    def asleep(self) -> None:
        """Until it waits for a key. CPython looks for signals there: one that comes between a
        letter's echo and there is seen a key later."""
        status, seen = Path(f"/proc/{self.process.pid}/stat"), 0
        while seen < 5:  # times in a row
            time.sleep(0.1)
            if status.exists():
                state = status.read_text().rpartition(") ")[2][0]
                seen = seen + 1 if state == "S" else 0
            else:  # no Linux: a second will do
                seen += 0.5

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())


def test_a_conversation_in_a_terminal_with_emoji_and_a_stop_in_the_middle():
    terminal = Terminal("--max-tokens", "400")
    try:
        assert "Ctrl-C stops an answer" in terminal.until("> ")
        terminal.type(f"{QUESTION}\n")
        assert terminal.until("\n> ").endswith(f"{PARIS}\n> ")
        terminal.type("Repeat the emoji 🙂 a hundred times, with nothing between.\n")
        terminal.until("between.\r\n.+?[^\r\n]{4}")  # the answer has begun
        terminal.process.send_signal(signal.SIGINT)
        stopped = terminal.until("\n> ")
        assert "Traceback" not in stopped and "\ufffd" not in stopped
        terminal.type("half a line")
        terminal.until("half a line")
        terminal.asleep()
        terminal.process.send_signal(signal.SIGINT)  # drops the line, and no more
        terminal.until("\n> ")
        terminal.type(f"{QUESTION}\n")
        assert "Paris" in terminal.until("\n> ")
        terminal.type("\x04")  # Ctrl-D
        assert terminal.process.wait(60) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.end)


def test_ctrl_c_ends_it_where_there_is_no_terminal():
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [*COMMAND, "--checkpoint", str(checkpoint_path(DEFAULT))]
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    process.stdin.write(b"Count from one to five hundred.\n")
    process.stdin.flush()
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert first and process.returncode == 130 and out.endswith(b"\n")
    assert b"interrupted" in err and b"Traceback" not in err
