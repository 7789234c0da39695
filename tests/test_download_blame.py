"""A failing download names what is wrong: certificates, token, proxy, portal, mirror."""

import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import loopback_client
import pytest
from huggingface_hub import close_session, constants
from loopback_client import BIG, NAME, TOKEN, failed, succeeded

ROOT = Path(__file__).resolve().parent.parent
NOWHERE = "127.0.0.1:9"
# pytest finds a fixture by its name in the module.
hub, hub_files, weights = loopback_client.hub, loopback_client.hub_files, loopback_client.weights


def utf16(folder: Path) -> str:
    """A text file as Windows' Notepad may save it."""
    (folder / "notes.txt").write_bytes("hf_secret\n".encode("utf-16"))
    return str(folder / "notes.txt")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"SSL_CERT_FILE": "/no.pem"}, ["certificates", "SSL_CERT_FILE", "PEM"]),
        ({"SSL_CERT_FILE": utf16}, ["certificates", "SSL_CERT_FILE", "PEM"]),
        ({"ALL_PROXY": f"socks5://{NOWHERE}"}, ["ALL_PROXY", "socks", "pip install socksio"]),
        ({"all_proxy": f"socks://{NOWHERE}/"}, ["all_proxy cannot be used", "socks5://HOST:PORT"]),
        ({"HTTPS_PROXY": NOWHERE}, ["out of reach", "asked through HTTPS_PROXY"]),
        ({"HTTPS_PROXY": "http://me:secret@h:port"}, ["HTTPS_PROXY cannot be used", "port"]),
        ({"NO_PROXY": "fe11::/16"}, ["out of reach", "A proxy is taken from HTTPS_PROXY"]),
        ({"HF_TOKEN": "hf_secret\u200b"}, ["token in HF_TOKEN", "U+200B at character 10"]),
        ({"HF_TOKEN": "your secret here"}, ["token in HF_TOKEN", "U+0020", "hf auth login"]),
        ({"HF_TOKEN_PATH": utf16}, ["notes.txt cannot be read", "UTF-8", "hf auth login"]),
        ({"HF_TOKEN_PATH": str}, ["cannot be read (Is a directory)", "hf auth login"]),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "30s"}, ["HF_HUB_DOWNLOAD_TIMEOUT is no number"]),
        ({"HF_ENDPOINT": NOWHERE}, ["HF_ENDPOINT", "https://"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_of_the_readers(settings, parts, tmp_path):
    settings = {k: v(tmp_path) if callable(v) else v for k, v in settings.items()}
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    env |= {"NANOSERVE_WEIGHTS": str(tmp_path / "w"), "HF_ENDPOINT": f"https://{NOWHERE}"}
    env |= {"HF_TOKEN_PATH": str(tmp_path / "none")} | settings
    command = [sys.executable, "-m", "nanoserve", "download", NAME]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert "Traceback" not in done.stderr and "secret" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "NANOSERVE_WEIGHTS" not in last
    for part in parts:
        assert part in last


def changed(change):
    """A listing whose files were changed one by one."""

    def listing(plain):
        found = json.loads(plain)
        for file in found["siblings"]:
            change(file)
        return json.dumps(found).encode()

    return listing


def names_only(file):
    for key in set(file) - {"rfilename"}:
        del file[key]


NO_HASH = ["gives no hash of", "config.json", "HF_ENDPOINT"]
A_PAGE = ["not as the hub does", "sign-in page", "in a browser"]


@pytest.mark.parametrize(
    ("listing", "parts"),
    [
        (changed(names_only), [*NO_HASH, BIG]),
        (changed(lambda file: file.pop("blobId")), NO_HASH),
        (lambda plain: b"<html>Sign in</html>", A_PAGE),
        (lambda plain: b"", A_PAGE),
        (lambda plain: b"[]", A_PAGE),
        (lambda plain: b'{"error": "no"}', A_PAGE),
    ],
)
def test_a_listing_that_is_not_the_hubs(hub, capsys, listing, parts):
    plain = hub.listing
    hub.listing = lambda: listing(plain())
    failed(capsys, *parts, hub.address)
    assert [name for name, _, _ in hub.asked] == ["info"]  # told before anything is fetched


@pytest.mark.parametrize(
    ("status", "part"),
    [(407, "The proxy wants a name"), (511, "sign in first"), (403, "a proxy or a firewall")],
)
@pytest.mark.parametrize("where", ["info", "config.json"])
def test_who_answers_in_the_hubs_place(hub, capsys, status, part, where):
    hub.faults[where] = [status]
    err = failed(capsys, part, str(status))
    assert "licence" not in err and "fault of its own" not in err


def test_a_relative_redirect_and_a_token_with_a_line_end(hub, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\r\n")
    hub.faults[BIG] = [("redirect", "")]
    succeeded(hub, capsys)
    assert {token for _, _, token in hub.asked} == {f"Bearer {TOKEN}"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="a certificate is made with openssl")
def test_a_certificate_that_is_not_trusted(hub, capsys, monkeypatch, tmp_path):
    make = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=proxy -keyout key -out cert"
    subprocess.run(["openssl", *make.split()], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    hub.server.socket = context.wrap_socket(hub.server.socket, server_side=True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address.replace("http:", "https:"))
    failed(capsys, "certificate is not trusted", "clock", "SSL_CERT_FILE")


def test_a_proxy_that_wants_a_password(hub, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("HTTPS_PROXY", hub.address.replace("http://", "http://me:secret@"))
    close_session()  # its client keeps the proxies that it was made with
    try:
        err = failed(capsys, "The proxy wants a name and a password (407)", "HTTPS_PROXY")
        assert "secret" not in err
    finally:
        monkeypatch.delenv("HTTPS_PROXY")
        close_session()
