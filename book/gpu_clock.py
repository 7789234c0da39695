"""Clocks for what runs on a GPU: by recorded graphs, and as the host sees it."""

import statistics
import time
from collections.abc import Callable

import torch

ON_A_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_A_GPU else "cpu"
Call = Callable[[], object]


def wait() -> None:
    """Until the card is done."""
    if ON_A_GPU:
        torch.cuda.synchronize()


def recorded(*calls: Call, times: int = 1) -> Call:
    """The calls, one after another and `times` over, as one graph to be replayed."""
    for call in calls:
        call()  # compiles, and lets libraries take what they want
    wait()
    if not ON_A_GPU:
        return lambda: [call() for call in calls]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            for call in calls:
                call()
    return graph.replay


def microseconds(*calls: Call, times: int = 1, repeats: int = 15) -> float:
    """The median time of one of `calls` on the card, without the host: they are recorded."""
    replay, found = recorded(*calls, times=times), []
    begin = time.perf_counter()
    while ON_A_GPU and time.perf_counter() - begin < 0.1:  # a card that slept runs slower at first
        replay()
        wait()
    for _ in range(repeats if ON_A_GPU else 1):
        if not ON_A_GPU:
            begin = time.perf_counter()
            replay()
            found.append(1e6 * (time.perf_counter() - begin))
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
        torch.cuda._sleep(400_000)  # cycles, in which the host hands over what is timed
        begin.record()
        replay()
        end.record()
        wait()
        found.append(1e3 * begin.elapsed_time(end))
    return round(statistics.median(found) / (len(calls) * times), 3)


def host_microseconds(call: Call, times: int = 20) -> float:
    """The time of a call as the host sees it, many in a row: launches and all."""
    times = times if ON_A_GPU else 1
    call()
    wait()
    begin = time.perf_counter()
    for _ in range(times):
        call()
    wait()
    return round(1e6 * (time.perf_counter() - begin) / times, 3)
