"""What went wrong with the hub, in words for the reader."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanoserve.checkpoints.hub_settings import LOGIN, PROXIES, given, hide
from nanoserve.checkpoints.staging import DownloadError, human

PROXY = "write them into HTTPS_PROXY, as http://NAME:PASSWORD@HOST:PORT"
BETWEEN = "If it happens again, a proxy, a portal or a mirror puts something in its place."
PROXY_FROM = "A proxy is taken from HTTPS_PROXY."


@contextmanager
def explained(repo: str, part: Path | None = None) -> Iterator[None]:
    """Turn the errors of huggingface_hub and of the network into DownloadError.

    `part` is the file that was being written; one that came in another size goes. Errors of the
    disk pass through unchanged.
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        raise DownloadError(refused(repo, error.response)) from error
    except OfflineModeIsEnabled as error:
        raise DownloadError(
            f"HF_HUB_OFFLINE is set, so the hub is not asked for {repo}. Unset it to download."
        ) from error
    except Exception as error:
        if not (text := network(error, part)):
            raise
        if part and other_size(error):
            part.unlink(missing_ok=True)
        raise DownloadError(text) from error


@contextmanager
def understood() -> Iterator[None]:
    """DownloadError where what was answered is no listing of a repository: another's page."""
    from huggingface_hub import constants

    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DownloadError(
            f"{constants.ENDPOINT} answers, but not as the hub does ({type(error).__name__}): the "
            "sign-in page of a network, a proxy, or a mirror may have answered in its place. Open "
            "that address in a browser, then run the same command again."
        ) from error


def refused(repo: str, response) -> str:
    """What an answer of the hub means: a status code, and a code of its own for gated files."""
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{repo}"
    if strangers := another(response):
        return strangers
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    said = response.headers.get("X-Error-Message", "")
    said = re.sub(r"\bhf_\w+", "hf_...", said)[:200]
    if status == 401 and "credentials" in said:
        return f"The hub does not know your access token: run {LOGIN} with a new one."
    if status == 401:
        return (
            f"{repo} is gated, and you are not logged in. Accept the licence at {page}, then run "
            f"{LOGIN} and the same command again."
        )
    if status == 403 and ("await" in said or "pending" in said):
        return (
            f"Your request for {repo} is awaiting an answer; {page} shows its state. Run the same "
            f"command again when it is granted ({LOGIN} need not be repeated)."
        )
    if status == 403 and code == "GatedRepo" and "fine-grained" not in said:
        return (
            f"You are logged in, but have no access to {repo}. Accept the licence at {page}, then "
            f"run the same command again, or {LOGIN} if you accepted it with another account. "
            f"The hub says: {said or 'nothing more'}."
        )
    if status == 403:
        return (
            f"The hub refuses {repo} to this token: {said or 'it says no more'}. A fine-grained "
            f"token needs the permission to read public gated repositories; run {LOGIN} with one "
            f"that has it. The licence is at {page}."
        )
    if status == 404:
        return f"{page} is not there (404), or not for you: see it in a browser."
    if status == 429:
        return f"The hub answers 429, too many requests: wait some minutes, or run {LOGIN}."
    if status >= 500:
        return f"The hub has a fault of its own ({status}): try again later."
    return f"The hub answers {status} for {repo}: {said or response.reason_phrase}."


def another(response) -> str:
    """Who answered in the hub's place, where it was a proxy or a network's gate; else ""."""
    status = response.status_code
    if status == 407:
        return f"The proxy wants a name and a password (407): {PROXY}."
    if status == 511:
        return "This network wants you to sign in first (511): open any page in a browser."
    # The hub says why it refuses, in a header of its own.
    reasons = [name for name in response.headers if name.lower().startswith("x-")]
    if status in (401, 403) and not reasons:
        return (
            f"{status} without a reason, which is not how the hub refuses: a proxy or a firewall "
            "may have answered in its place. See the address in a browser."
        )
    return ""


def other_size(error: Exception) -> bool:
    """Whether this is the library's error for a file that has come in another size."""
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def network(error: Exception, part: Path | None) -> str:
    """What a failure of the connection means; "" for an error that is none."""
    if other_size(error):
        sizes = re.search(r"should be of size (\d+) but has size (\d+)", str(error))
        wanted, found = sizes.groups() if sizes else ("?", "?")
        return (
            f"A file arrived with {found} bytes, and the hub says {wanted}; it was thrown away. "
            f"Run the same command again; the other files are kept. {BETWEEN}"
        )
    # The library's client is httpx in version 1 and httpx2 in version 2: known by their names.
    ours = type(error).__module__.startswith("httpx")
    if not ours and not isinstance(error, ssl.SSLError | ConnectionError):
        return ""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            f"The hub's certificate is not trusted on this machine ({hide(str(error))}). Is its "
            "clock right? A company's proxy has a certificate of its own: name its file in "
            "SSL_CERT_FILE."
        )
    kind = type(error).__name__
    kept = part.stat().st_size if part and part.is_file() else 0
    if kept or (part and kind not in ("ConnectError", "ConnectTimeout", "ProxyError")):
        return (
            f"The connection to the hub was cut ({kind}). {human(kept)} of this file are kept: run "
            "the same command again, and it goes on from there."
        )
    if kind == "ProxyError" and "407" in str(error):
        return f"The proxy wants a name and a password (407): {PROXY}."
    proxies = given(PROXIES[:-1])
    via = f"It is asked through {proxies}: is that right?" if proxies else PROXY_FROM
    why = hide(str(error)) or "no answer"
    return f"The hub is out of reach ({kind}: {why}). Is there a network? {via}"
