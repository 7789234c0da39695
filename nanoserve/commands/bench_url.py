"""`nanoserve bench --url`: an open-loop load test of a server that speaks OpenAI's language."""

import argparse
import asyncio
import json
from datetime import datetime, timezone
from typing import Any

from nanoserve import __version__
from nanoserve.commands.common import given_settings, option


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of a load test; they are for --url alone."""
    group = parser.add_argument_group("of a server, with --url")
    about = "measure the server there: requests come by chance, whatever became of those before"
    group.add_argument("--url", help=about)
    about = "requests a second on average; default 1"
    group.add_argument("--rate", type=float, help=about)
    about = "seconds that a request may take, then it has failed; default 600"
    group.add_argument("--timeout", type=float, help=about)
    about = "good are requests whose first token comes within so many seconds; default 1"
    group.add_argument("--first-within", type=float, help=about)
    about = "and the other tokens every so many seconds on average; default 0.1"
    group.add_argument("--pace-within", type=float, help=about)
    group.add_argument("--api-key", help="the key that the server wants, if it wants one")


OWN = {"rate": 1.0, "timeout": 600.0, "first_within": 1.0, "pace_within": 0.1}


def settings(args: argparse.Namespace) -> dict[str, float]:
    """The numbers of the test. ValueError for what makes no sense, or would be ignored."""
    ours = [name for name in ("checkpoint", "hf") if getattr(args, name)]
    ours += ["device"] * (args.device != "cpu") + given_settings(args)
    if ours:
        raise ValueError(f"{option(ours[0])} is for an engine here, not for --url")
    if args.workload == "chat":
        raise ValueError(
            "the turns of a chat wait for each other: --url takes nano-vllm's requests"
        )
    for name, least in (("requests", 1), ("longest", 8)):
        if getattr(args, name) < least:
            raise ValueError(f"{name} must be {least} or more, got {getattr(args, name)}")
    given = {name: getattr(args, name) for name in OWN}
    found = {name: OWN[name] if value is None else value for name, value in given.items()}
    for name, value in found.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{option(name)} must be over 0, got {value}")
    return found


def refuse(args: argparse.Namespace) -> None:
    """ValueError where an argument of a load test is given without --url."""
    for name in (*OWN, "api_key"):
        if getattr(args, name) is not None:
            raise ValueError(f"{option(name)} is for the server at --url: give that too")


def run(args: argparse.Namespace) -> None:
    """Print what people would have got. ValueError where nobody would have got anything."""
    from nanoserve.bench.load import arrivals, body_of, offer, report
    from nanoserve.bench.workloads import nano_vllm

    numbers = settings(args)
    model, longest = served(args.url, args.api_key)
    asked = nano_vllm(args.requests, args.seed, args.longest)
    temperature = 0.6 if args.temperature is None else args.temperature
    bodies = [
        body_of(model, turn.ids, turn.new, temperature=temperature, seed=i)
        for i, (turn,) in enumerate(asked)
    ]
    most = max(len(turn.ids) + turn.new for (turn,) in asked)
    if longest and most > longest:
        raise ValueError(f"the longest request has {most} tokens, and the server takes {longest}: "
                         "take a smaller --longest")  # fmt: skip
    due = arrivals(numbers["rate"], args.requests, args.seed)
    one = [body_of(model, asked[0][0].ids[:1], 1)]
    warm, key = [0.0], args.api_key or ""
    asyncio.run(offer(args.url, one, warm, numbers["timeout"], key))  # no part of the sample
    heard = asyncio.run(offer(args.url, bodies, due, numbers["timeout"], key))
    found = report(heard, numbers["first_within"], numbers["pace_within"])
    print("\n".join(lines(found, numbers)), flush=True)
    if args.json:
        about = {"url": args.url, "model": model, "longest": args.longest, "seed": args.seed}
        about |= {"temperature": temperature, "nanoserve": __version__} | numbers
        about["date"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        args.json.write_text(json.dumps(about | found, indent=1) + "\n", "utf-8")
    if not found["answered"]:
        raise ValueError(f"no request was answered: {found['failures']}")


def served(url: str, key: str | None) -> tuple[str, int | None]:
    """The name of the model there, and how many tokens it takes, if it says so."""
    import httpx

    told = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url, headers=told, trust_env=False, timeout=30) as client:
            card = client.get("/v1/models").raise_for_status().json()["data"][0]
        return card["id"], card.get("max_model_len")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"--url {url}: /v1/models does not answer as a server ({error})") from None


def lines(found: dict[str, Any], numbers: dict[str, float]) -> list[str]:
    """A report in words."""
    failures = ", ".join(f"{count} times {why}" for why, count in found["failures"].items())
    count, answered = found["requests"], found["answered"]
    told = [
        f"{count} requests at {numbers['rate']:g} a second: {answered} answered, "
        f"{count - answered} failed" + (f" ({failures})" if failures else ""),
        f"{found['tokens_per_second']:.1f} new tokens/s, {found['answered_per_second']:.2f} "
        f"requests/s; goodput {found['goodput']:.2f} requests/s (a first token within "
        f"{numbers['first_within']:g} s, then one in {numbers['pace_within']:g} s)",
    ]
    names = {"first_token_seconds": "first token", "gap_seconds": "from token to token"}
    for field, name in (names | {"request_seconds": "the whole answer"}).items():
        cuts = (f"{p} {'never' if x is None else f'{x:.3g} s'}" for p, x in found[field].items())
        told.append(f"{name}: {', '.join(cuts)}")
    if found["late_seconds"] > 0.1:
        told.append(f"this client was late itself, by up to {found['late_seconds']:.2f} s")
    return told
