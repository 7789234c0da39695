"""What the judge says of a mistake names the mistake: readers' slips that it called by another."""

from functools import partial

import pytest
import torch
from judging import complaint

from nanoserve.checks import paging
from nanoserve.checks.block_orders import Plain, compare
from nanoserve.checks.model import VARIANTS, make
from nanoserve.checks.model_loading import load_saved
from nanoserve.checks.schedules import check_orders, check_room
from nanoserve.engine.blocks import BlockManager
from nanoserve.engine.pool import KVPool
from nanoserve.engine.request import Request
from nanoserve.engine.scheduler import Scheduler


@pytest.fixture(scope="module")
def model():
    return load_saved(make(VARIANTS[0]).eval())


def slip(patch, name: str, after):
    """The method of the pool whose result `after` spoils."""
    plain = getattr(KVPool, name)
    patch.setattr(KVPool, name, lambda self, *given: after(self, plain(self, *given)))


def no_return(pool, result):
    pass


def a_slot_too_many(pool, places):
    row, sizes, (at,) = places
    other = next(i for i in range(pool.k.shape[1]) if i not in at)
    return row, sizes, [torch.cat([at, at.new_tensor([other])])]


@pytest.mark.parametrize(
    ("name", "after", "said"),
    [
        ("attends", no_return, "functions, one for each layer. It is not so: it gave None"),
        ("attends", lambda pool, attends: attends[:2], "must give a list of 3 functions"),
        (
            "places",
            a_slot_too_many,
            "written, in layer 0 too. It is not so: NaN",
        ),
    ],
)
def test_a_pool_that_reads_or_returns_what_it_must_not(model, monkeypatch, name, after, said):
    slip(monkeypatch, name, after)
    text = complaint(paging.check_alone, model, 4, 5, 5)
    assert said in text and "must write" not in text


def test_a_pool_that_does_not_write_one_layer(model, monkeypatch):
    plain = KVPool.write

    def write(self, layer, row, k, v):
        return plain(self, layer, row, k, v) if layer != 1 else (self.k[layer], self.v[layer])

    monkeypatch.setattr(KVPool, "write", write)
    assert "of layer 1" in complaint(paging.check_alone, model, 4, 5, 5)


def a_list(manager):
    manager.queue = [*manager.queue]


def by_another_name(manager):
    manager.free_blocks = manager.__dict__.pop("queue")


@pytest.mark.parametrize(("other", "it_is"), [(a_list, "list"), (by_another_name, "NoneType")])
def test_a_free_queue_of_another_kind(other, it_is):
    manager, plain = BlockManager(4, 2), Plain(4, 2)
    other(manager)
    said = complaint(compare, manager, plain, "the start")
    assert "`queue` must be an OrderedDict, its keys the free blocks" in said
    assert said.endswith(f"It is not so: it is a {it_is}")


@pytest.mark.parametrize(("more", "reason"), [(1, "has None, wanted 'length'"), (-1, "None")])
@pytest.mark.parametrize("check", [check_room, partial(check_orders, 4)])
def test_an_answer_of_another_length_is_not_said_to_be_of_preemption(
    check, more, reason, monkeypatch
):
    def ending(self):
        return "length" if len(self.output_ids) >= self.params.max_tokens + more else None

    monkeypatch.setattr(Request, "ending", ending)
    said = complaint(check)
    assert "tokens (max_tokens): its finish_reason" in said and said.endswith(reason)


@pytest.mark.parametrize(
    ("name", "said"),
    [("schedule", "must return a Plan"), ("update", "must return a list of the requests")],
)
def test_a_scheduler_that_forgets_its_return(name, said, monkeypatch):
    plain = getattr(Scheduler, name)
    monkeypatch.setattr(Scheduler, name, lambda self, *given: plain(self, *given) and None)
    text = complaint(check_room)
    assert f"`{name}` {said}" in text and text.endswith("It is not so: it gave None")
