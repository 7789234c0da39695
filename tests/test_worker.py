"""AsyncEngine, plainly: what it answers is the engine's, and it stops."""

import asyncio
import threading
import time

import pytest
from tiny import save_tiny

from nanoserve.checks.worker_answers import made_model
from nanoserve.checks.worker_cancels import check_cancels
from nanoserve.engine.engine import Engine
from nanoserve.engine.llm import LLM
from nanoserve.sampling import SamplingParams
from nanoserve.server.worker import AsyncEngine, Busy, EngineError, Stopped

GREEDY = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
PROMPTS = [list(range(1, n)) for n in (4, 9, 30, 3, 17, 2)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    save_tiny(folder)
    return folder


SECONDS = 120  # after which something hangs, and no machine is that slow


def run(main):
    """A coroutine on a loop of its own; an error where it hangs, or leaves a task or a thread."""

    async def limited():
        result = await asyncio.wait_for(main, SECONDS)
        assert len(asyncio.all_tasks()) == 1
        return result

    before = threading.active_count()
    try:
        return asyncio.run(limited())
    finally:
        assert threading.active_count() == before


def test_whoever_leaves_at_every_moment_in_every_way():
    """Day 19's comparison tries one way at each moment, to be quick."""
    check_cancels(made_model()[1], ways=4)


def test_together_as_alone_and_pieces_lead_to_the_whole(made):
    async def one(engine, ids):
        async with await engine.submit(ids, GREEDY) as answer:
            outputs = [output async for output in answer]
        assert [o.finished for o in outputs] == [False] * (len(outputs) - 1) + [True]
        return outputs[-1].token_ids

    async def main():
        async with AsyncEngine(Engine(made, num_blocks=20)) as engine:
            ids = await asyncio.gather(*(one(engine, p) for p in PROMPTS))
            assert engine.running == engine.waiting == 0 and engine.healthy
            assert engine.stats().free_blocks == 20
        assert not engine.healthy
        return ids

    wanted = [output.token_ids for output in LLM(made).generate(PROMPTS, GREEDY)]
    assert run(main()) == wanted


def test_refused_at_once(made):
    async def main():
        engine = AsyncEngine(Engine(made, num_blocks=4, max_num_seqs=1), max_waiting=1)
        with pytest.raises(Stopped, match="not been started"):
            await engine.submit([1])
        async with engine:
            with pytest.raises(ValueError, match="vocabulary"):
                await engine.submit([97])
            with pytest.raises(ValueError, match="num_blocks"):
                await engine.submit([1] * 64, GREEDY)
            answers = [await engine.submit([1, 2], GREEDY, f"{i}") for i in range(2)]
            with pytest.raises(Busy) as busy:
                await engine.submit([1, 2], GREEDY)
            assert busy.value.retry_after >= 1
            with pytest.raises(ValueError, match="in use"):
                await engine.submit([1, 2], GREEDY, "0")
            for answer in answers:
                assert len((await answer.last()).token_ids) == 9
        with pytest.raises(Stopped, match="shutting down"):
            await engine.submit([1])

    run(main())


def test_who_leaves_is_aborted_and_stop_tells(made):
    long = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
    slow = Engine(made)
    step = slow.step

    async def main():
        async with AsyncEngine(slow) as engine:

            def waits():  # but for the first, for the next command: who leaves is quicker
                while engine.stats().steps and engine.thread.commands.empty() and not slow.aborted:
                    time.sleep(0.001)
                return step()

            slow.step = waits
            answer = await engine.submit([1, 2], long)
            async with answer:
                async for output in answer:
                    assert not output.finished
                    break
            await engine.idle.wait()
            stats = engine.stats()
            assert stats.free_blocks == stats.num_blocks and stats.steps <= 2
            told = await engine.submit([1, 2], long)
            await engine.stop(grace=0)
            assert (await told.last()).finish_reason == "abort"

    run(main())


def test_a_failing_step_fails_its_requests_and_two_in_a_row_end_it(made, caplog):
    engine = Engine(made)
    works, broken = engine.runner.run, []

    def sometimes(plan):
        if broken:
            raise RuntimeError(broken.pop())
        return works(plan)

    engine.runner.run = sometimes

    async def main():
        async with AsyncEngine(engine) as served:
            for fails in ([], ["once"], [], ["once more"], ["and again"]):
                assert served.healthy
                broken[:] = fails
                answer = await served.submit([1, 2], GREEDY)
                if not fails:
                    assert len((await answer.last()).token_ids) == 9
                    continue
                with pytest.raises(EngineError, match=fails[0]):
                    await answer.last()
            await served.ended.wait()
            assert not served.healthy
            with pytest.raises(Stopped, match="thread"):
                await served.submit([1], GREEDY)

    run(main())
    assert "a step failed" in caplog.text


def test_a_loop_that_ends_without_a_stop_ends_the_thread(made, monkeypatch):
    raised, over = [], threading.Event()
    monkeypatch.setattr("threading.excepthook", raised.append)
    slow = Engine(made)
    step = slow.step
    slow.step = lambda: over.wait(SECONDS) and step()  # the loop ends first, however slowly

    async def main():
        engine = AsyncEngine(slow)
        await engine.start()
        return engine.thread, await engine.submit([1, 2], GREEDY)

    thread, answer = asyncio.run(main())  # who holds an answer has not left
    over.set()
    thread.join(SECONDS)
    assert not thread.is_alive() and not raised and not answer.over
