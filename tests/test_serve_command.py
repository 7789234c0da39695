"""`nanoserve serve`: started, asked, told to end while it answers; and what it refuses."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import openai
import pytest
from tiny import save_tiny

from nanoserve.checks.engine_texts import checkpoint
from nanoserve.cli import main
from nanoserve.commands.serve import SPINS, spin_briefly

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120  # for a machine that is busy


@pytest.fixture(scope="module")
def folder():
    with checkpoint() as path:
        yield path


@contextmanager
def serving(folder: Path, *arguments: str):
    """The process, and its address, once it says that it is there."""
    command = [sys.executable, "-m", "nanoserve", "serve", str(folder), "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"(http://\S+)/v1", said):
                break
        assert found, said
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_it_is_asked_and_ends_without_a_word(folder):
    with serving(folder, "--max-num-seqs", "2", "--num-blocks", "64") as (process, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0, timeout=SECONDS)
        (model,) = client.models.list().data
        assert model.id == folder.name
        asked = {"model": model.id, "prompt": "x", "max_tokens": 5, "temperature": 0}
        whole = client.completions.create(**asked).choices[0].text
        parts = [c.choices[0].text for c in client.completions.create(**asked, stream=True)]
        assert "".join(parts) == whole
        assert "<!doctype html>" in httpx.get(url, timeout=SECONDS).text
        client.close()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == -signal.SIGTERM and "Traceback" not in said, said


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_who_is_being_answered_when_it_ends_gets_an_answer(folder, sign):
    """All who were let in: whole and streamed, running and waiting."""
    with serving(folder, "--max-num-seqs", "2", "--max-num-batched-tokens", "8") as (process, url):
        got, begun = {}, threading.Event()
        clients = [httpx.Client(timeout=SECONDS) for _ in range(6)]  # made first, which takes long

        def ask(i: int) -> None:
            body = {"prompt": [5 + i] * 20, "max_tokens": 100, "ignore_eos": True}
            body |= {"stream": i % 2 == 1}
            asked = clients[i].stream("POST", f"{url}/v1/completions", json=body)
            with suppress(httpx.TransportError), asked as answer:  # or it came too late
                got[i] = answer  # if it is cut from here on, it has no text
                begun.set()
                answer.read()

        threads = [threading.Thread(target=ask, args=[i]) for i in range(6)]
        for thread in threads:
            thread.start()
        assert begun.wait(SECONDS)  # the first is being answered
        process.send_signal(sign)
        for thread in threads:
            thread.join(SECONDS)
        assert process.wait(SECONDS) in (130, -sign)
        for client in clients:
            client.close()
        answered = [i for i, answer in got.items() if answer.status_code == 200]
        for i, answer in got.items():
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200 and i % 2:
                assert answer.text.endswith("data: [DONE]\n\n") and '"length"' in answer.text
            elif answer.status_code == 200:
                assert answer.json()["choices"][0]["finish_reason"] == "length"
        assert answered


def test_a_key_is_wanted_where_one_is_set(folder):
    with serving(folder, "--api-key", "a key") as (_, url):
        assert httpx.get(f"{url}/v1/models", timeout=SECONDS).status_code == 401
        headers = {"Authorization": "Bearer a key"}
        assert httpx.get(f"{url}/v1/models", headers=headers, timeout=SECONDS).status_code == 200
        assert json.loads(httpx.get(f"{url}/health", timeout=SECONDS).text)["healthy"]


def test_a_port_that_is_taken_is_named_before_the_model_is_read(folder, capsys, monkeypatch):
    monkeypatch.setattr("nanoserve.server.run.engine_on", lambda *_, **__: pytest.fail("read"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(folder), "--port", port]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: cannot listen at 127.0.0.1") and port in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--port", "99999"], "99999"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--port", "0", "--max-waiting", "-1"], "max_waiting"),
        (["--port", "0", "--block-size", "0"], "block_size"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(folder, arguments, word, capsys):
    assert main(["serve", str(folder), *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and word in err and err.count("\n") == 1


def test_a_checkpoint_that_is_not_there_is_named(capsys, tmp_path):
    assert main(["serve", str(tmp_path / "nothing"), "--port", "0"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_its_help_needs_no_server_libraries():
    code = "import sys; sys.modules['fastapi'] = sys.modules['uvicorn'] = None\n"
    code += "from nanoserve.cli import main\nsys.exit(main(['serve', '--port', '0']))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "is missing: pip install 'nanoserve[server]'" in run.stderr, run.stderr


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux, and GNU's OpenMP")


@LINUX
def test_only_the_engines_thread_has_a_team(tmp_path, monkeypatch):
    """A worker comes when it steps, and none when the model is read."""
    folder = tmp_path / "made"
    save_tiny(folder, vocab_size=10_007)  # so much that torch shares it out
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # numpy's own, that come with it
    with serving(folder, "--num-blocks", "64") as (process, url):

        def threads() -> int:
            return len(os.listdir(f"/proc/{process.pid}/task"))

        assert threads() == 2  # the event loop's, and the engine's
        body = {"prompt": [5] * 20, "max_tokens": 5}
        httpx.post(f"{url}/v1/completions", json=body, timeout=SECONDS).raise_for_status()
        assert threads() == 2 + 2  # the worker, and the thread that cuts texts


@LINUX
def test_openmp_is_told_to_spin_briefly_before_it_looks(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "verbose")
    command = [sys.executable, "-m", "nanoserve", "serve", "nothing", "--port", "0"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in said, said


@pytest.mark.parametrize(
    ("mine", "spins"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_what_the_user_has_told_openmp_stays(monkeypatch, mine, spins):
    monkeypatch.setattr(os, "environ", dict(mine))
    spin_briefly()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
