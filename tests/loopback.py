"""A small hub on 127.0.0.1, for the real huggingface_hub client, with faults on demand."""

import hashlib
import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """Serves one repository. `faults[name]` is a list, one taken at each request of that file.

    A fault is a status (404, 429, 500), ("gate", status, code, message), ("redirect", address),
    or one of "cut" and "reset" (in the middle), "stall" (there, for 5 s), "hold" (there, until the
    hub is closed), "whole" (ranges ignored), "short" and "corrupt". The name "info" stands for the
    repository's listing.
    """

    def __init__(self, repo: str, files: dict[str, bytes], commit: str = "c0ffee" * 6 + "c0ff"):
        self.repo, self.files, self.commit = repo, files, commit
        self.faults: dict[str, list] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []  # name, Range, Authorization
        self.closed = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self)

            def do_CONNECT(self):  # as a proxy that is told no password
                hub.say(self, 407, {}, b"")

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True).start()

    def close(self):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()

    def ranges(self, name: str) -> list[str | None]:
        """The Range header of every request of a file."""
        return [r for asked, r, _ in self.asked if asked == name]

    def listing(self) -> bytes:
        siblings = []
        for name, data in self.files.items():
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry = {"rfilename": name, "size": len(data), "blobId": git}
            if name.endswith((".safetensors", ".pth")):  # in LFS
                sha = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        info = {"id": self.repo, "modelId": self.repo, "sha": self.commit, "siblings": siblings}
        return json.dumps(info).encode()

    def answer(self, request):
        path = unquote(urlsplit(request.path).path)
        prefix = f"/{self.repo}/resolve/{self.commit}/"
        if path == f"/api/models/{self.repo}":
            name, data = "info", self.listing()
        elif path.startswith(prefix) and (name := path.removeprefix(prefix)) in self.files:
            data = self.files[name]
        else:  # the client also asks for things that are no part of a repository
            return self.say(request, 404, {}, b"{}")
        wanted = request.headers.get("Range")
        self.asked.append((name, wanted, request.headers.get("Authorization")))
        waiting = self.faults.get(name)
        fault = waiting.pop(0) if waiting else None
        if isinstance(fault, int):
            return self.say(request, fault, {}, b"{}")
        if isinstance(fault, tuple) and fault[0] == "gate":
            head = {"X-Error-Code": fault[2], "X-Error-Message": fault[3]}
            return self.say(request, fault[1], {k: v for k, v in head.items() if v}, b"{}")
        if isinstance(fault, tuple):
            return self.say(request, 302, {"Location": fault[1] + request.path}, b"")
        self.send(request, data, wanted, fault)

    def say(self, request, status: int, headers: dict[str, str], body: bytes):
        request.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body)

    def send(self, request, data: bytes, wanted: str | None, fault: str | None):
        size, start = len(data), 0
        if fault == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "short":
            data = data[: size // 2]
        if wanted and fault != "whole":
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        body = data[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("X-Repo-Commit", self.commit)
        request.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        if fault not in ("cut", "reset", "stall", "hold"):
            request.wfile.write(body)
            return
        request.wfile.write(body[: len(body) // 2])
        request.wfile.flush()
        if fault == "hold":
            self.closed.wait()
        time.sleep(5 if fault == "stall" else 0.2)
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)  # close with RST: what was sent is not confirmed
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.close_connection = True
        request.connection.shutdown(
            socket.SHUT_WR
        ) if fault == "cut" else request.connection.close()
