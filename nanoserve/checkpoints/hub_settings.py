"""What the reader has set for the hub, looked at before the hub is asked for anything.

Endpoint, token, certificates, proxies and numbers all come from environment variables or files of
the reader's. A fault in one shows deep inside a library; here it gets its name.
"""

import os
import re

from nanoserve.checkpoints.staging import DownloadError

LOGIN = "`hf auth login`"
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")  # the last names exceptions


def look_through() -> None:
    """DownloadError where the hub's client cannot be set up as the reader's settings want it."""
    try:
        from huggingface_hub import constants
    except ValueError as error:  # its numbers are read while it is imported
        raise DownloadError(
            f"{given(('HF_',), str(error)) or 'A variable HF_...'} is no number ({error}): "
            "set it right, or unset it."
        ) from error
    if not re.match(r"https?://[^/]", constants.ENDPOINT):
        raise DownloadError(
            f"HF_ENDPOINT is {constants.ENDPOINT!r}, and an address begins with https:// or http://."
        )
    look_at_token()
    look_at_client()


def look_at_token() -> None:
    """DownloadError where the access token cannot be read, or cannot be one. Never shows it."""
    from huggingface_hub import constants, get_token

    place = next((v for v in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(v)), "")
    where = place or f"the file {constants.HF_TOKEN_PATH}"
    mend = f"set {place} anew, or unset it and run {LOGIN}" if place else f"run {LOGIN} anew"
    try:
        token = get_token() or ""
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        text = f"The access token in {where} cannot be read ({why}): {mend}."
        raise DownloadError(text) from None  # the cause may quote the token
    if strange := re.search(r"[^!-~]", token):
        raise DownloadError(
            f"The access token in {where} has U+{ord(strange[0]):04X} at character "
            f"{strange.start() + 1}, which no token has: {mend}."
        )


def look_at_client() -> None:
    """DownloadError where the client cannot be made with the reader's certificates and proxies."""
    from huggingface_hub import get_session

    proxies = given(PROXIES)
    try:
        get_session()
    except OSError as error:
        names = given(CERTIFICATES) or "SSL_CERT_FILE"
        raise DownloadError(
            f"The certificates that {names} names cannot be read ({error.strerror or error}): "
            "name a file in PEM format, or unset it."
        ) from error
    except ImportError as error:
        raise DownloadError(
            f"{proxies or 'The proxy'} is a socks proxy, for which a package is missing: "
            "`python -m pip install socksio`, or name an http:// one."
        ) from error
    except Exception as error:
        if not proxies:
            raise
        raise DownloadError(
            f"{proxies} cannot be used ({hide(str(error))}): a proxy is written "
            "http://HOST:PORT or socks5://HOST:PORT."
        ) from error


def given(names: tuple[str, ...], said: str = "") -> str:
    """The set variables of these names or beginnings, in the case that they are written in.

    With `said`, an error's text, only one whose value is quoted in it.
    """
    found = [
        name
        for name, value in sorted(os.environ.items())
        if value and (name.upper() in names or (said and name.startswith(names)))
    ]
    return " or ".join(name for name in found if not said or repr(os.environ[name]) in said)


def hide(text: str) -> str:
    """Without the password of an address."""
    return re.sub(r"://[^/@\s]+@", "://", text)[:200]
