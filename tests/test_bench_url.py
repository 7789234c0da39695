"""`nanoserve bench --url`: what it asks, counts and refuses, against servers on this machine."""

import json
import math
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny import save_tiny

from nanoserve.bench.workloads import nano_vllm
from nanoserve.checks import server_local
from nanoserve.checks.metrics_numbers import read
from nanoserve.cli import main
from nanoserve.engine.engine import Engine

LONG = ("--longest", "24")
GOOD = ("--first-within", "1000", "--pace-within", "1000")  # on any machine, however busy


class Made:
    """A server that answers from a script: a status, or pieces of a stream; and what it heard."""

    def __init__(self):
        self.heard, self.keys, self.answers = [], [], []  # the last answer is given again
        self.lock = threading.Lock()  # each request has a thread

    def stream(self, body: dict) -> bytes:
        """As many ids as were asked for, two to a chunk."""
        ids, events = list(range(body["max_tokens"])), []
        for i in range(0, len(ids), 2):
            end = "length" if i + 2 >= len(ids) else None
            events.append({"choices": [{"token_ids": ids[i : i + 2], "finish_reason": end}]})
        events.append({"choices": [], "usage": {"prompt_tokens": len(body["prompt"])}})
        return b"".join(b"data: %s\n\n" % json.dumps(e).encode() for e in events)


@contextmanager
def served(made: Made):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            made.keys.append(self.headers["Authorization"])
            self.say(200, json.dumps({"data": [{"id": "m", "max_model_len": 100}]}).encode())

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with made.lock:
                made.heard.append(body)
                answer = made.answers.pop(0) if len(made.answers) > 1 else made.answers[0]
            self.say(answer, b"") if isinstance(answer, int) else self.say(200, answer(body))

        def say(self, status, data):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # with 5, a connection now and then takes a second

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def made():
    made = Made()
    made.answers = [made.stream]
    return made


def bench(url: str, *more: str) -> int:
    return main(["bench", "--url", url, "--rate", "500", *LONG, *more])


def test_what_is_asked_is_the_workload_and_the_counts_are_the_servers(made, tmp_path, capsys):
    file = tmp_path / "found.json"
    with served(made) as url:
        assert bench(url, "--requests", "9", "--json", str(file), "--api-key", "k", *GOOD) == 0
    found, asked = json.loads(file.read_text()), [turn for (turn,) in nano_vllm(9, 0, 24)]
    warm, *heard = made.heard
    assert warm["max_tokens"] == 1 and len(warm["prompt"]) == 1  # and no part of the sample
    by_seed = sorted(heard, key=lambda body: body["seed"])
    assert [body["prompt"] for body in by_seed] == [list(turn.ids) for turn in asked]
    assert [body["max_tokens"] for body in by_seed] == [turn.new for turn in asked]
    assert all(b["stream"] and b["ignore_eos"] and b["temperature"] == 0.6 for b in heard)
    assert made.keys == ["Bearer k"]
    assert (found["requests"], found["answered"], found["failures"]) == (9, 9, {})
    assert found["prompt_tokens"] == sum(len(turn.ids) for turn in asked)
    assert found["new_tokens"] == sum(turn.new for turn in asked)
    assert found["goodput"] == found["answered_per_second"] > 0
    said = capsys.readouterr().out
    assert said.startswith("9 requests at 500 a second: 9 answered, 0 failed\n") and "p99" in said


def test_failures_are_counted_and_no_percentile_is_without_them(made, tmp_path, capsys):
    made.answers = [made.stream, 429, 500, lambda body: b"data: {", made.stream]
    file = tmp_path / "found.json"
    with served(made) as url:
        assert bench(url, "--requests", "20", "--json", str(file)) == 0
    found = json.loads(file.read_text())
    assert found["answered"] == 17 and found["requests"] == 20
    assert sum(found["failures"].values()) == 3 and found["failures"]["status 429"] == 1
    assert found["first_token_seconds"]["p99"] is None  # three of twenty never got one
    assert math.isfinite(found["first_token_seconds"]["p50"])
    assert "17 answered, 3 failed" in (said := capsys.readouterr().out) and "p99 never" in said


def test_a_server_that_answers_nobody_is_an_error(made, capsys):
    made.answers = [503]
    with served(made) as url:
        assert bench(url, "--requests", "3") == 1
    assert "no request was answered: {'status 503': 3}" in capsys.readouterr().err


def test_one_that_does_not_end_is_a_failure_after_its_time(made, capsys):
    def said(timeout: str) -> str:
        over = threading.Event()
        made.answers = [made.stream, lambda body: over.wait(90) and b"", made.stream]
        with served(made) as url:
            bench(url, "--requests", "3", "--timeout", timeout)
            over.set()
        return capsys.readouterr().out

    wanted = "2 answered, 1 failed (1 times TimeoutError)"
    # Where the machine itself stands still for two seconds, the other two fail as well.
    assert wanted in said("2") or wanted in said("30")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--checkpoint", "x"), "--checkpoint is for an engine here"),
        (("--num-blocks", "4"), "--num-blocks is for an engine here"),
        (("--no-enable-prefix-caching",), "--enable-prefix-caching is for an engine here"),
        (("--device", "cuda"), "--device is for an engine here"),
        (("--dtype", "float16"), "--dtype is for an engine here"),
        (("--workload", "chat"), "the turns of a chat wait for each other"),
        (("--requests", "0"), "requests must be 1 or more, got 0"),
        (("--rate", "0"), "--rate must be over 0"),
        (("--timeout", "-1"), "--timeout must be over 0"),
        (("--json", "/no/folder/f"), "--json /no/folder/f cannot be written"),
        (("--longest", "60"), "the longest request has"),
    ],
)
def test_what_cannot_be_is_refused_before_a_request(made, arguments, said, capsys):
    with served(made) as url:
        assert bench(url, *arguments) == 1
    assert said in capsys.readouterr().err and not made.heard


def test_its_arguments_want_a_url_and_a_url_wants_a_server(capsys):
    assert main(["bench", "--rate", "2"]) == 1
    assert "--rate is for the server at --url" in capsys.readouterr().err
    for url in ("http://127.0.0.1:9", "nonsense"):
        assert bench(url) == 1
        assert f"--url {url}: /v1/models does not answer" in capsys.readouterr().err


def test_our_own_server_counts_as_its_clients_do(tmp_path):
    folder, file = tmp_path / "tiny", tmp_path / "found.json"
    save_tiny(folder, vocab_size=10_007)  # prompts have ids up to 10,000
    with server_local.served(Engine(folder, num_blocks=20, max_num_seqs=4)) as local:
        assert bench(local.url, "--requests", "12", "--json", str(file), *GOOD) == 0
        told = read(local.http.get("/metrics").text)
    found = json.loads(file.read_text())
    assert found["answered"] == 12 and found["model"] == server_local.MODEL
    # The server has seen the request that warms up, too: one token read, and one written.
    assert told["request_success_total length"] == 12 + 1
    assert told["generation_tokens_total"] == found["new_tokens"] + 1
    assert told["prompt_tokens_total"] == found["prompt_tokens"] + 1
    assert told["inter_token_latency_seconds_count"] == found["new_tokens"] - 12
