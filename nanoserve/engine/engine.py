"""Requests in, and after every step what they got.

Built in the book: day16. Edit there, then run book/tangle.py.
"""

from nanoserve.engine.desk import Desk
from nanoserve.engine.request import Request, RequestOutput


class Engine(Desk):
    """Writes many texts at once, each as if it were alone.

    `model` is a Llama, or a checkpoint's folder or name: then its ends
    and its tokenizer come along, which makes texts and finds stop
    strings. The pool has `num_blocks` of `block_size` tokens. At most
    `max_num_seqs` requests run; a step reads at most
    `max_num_batched_tokens`. ValueError for what cannot be honoured.
    """

    def step(self, only_ended: bool = False) -> list[RequestOutput]:
        """One pass of the model: all that got a token, or ended.

        With `only_ended`, nothing is said of those that go on.
        """
        plan, told = self.scheduler.schedule(), []
        if plan.shares:
            ids, logprobs = self.runner.run(plan)
            due = self.scheduler.update(plan, ids)
            for request, logprob in zip(due, logprobs, strict=True):
                request.logprobs.append(logprob)
                self.write(request)
                if request.finish_reason or not only_ended:
                    told.append(self.output(request))
        told += self.aborted.values()
        self.aborted.clear()
        return told

    def write(self, request: Request) -> None:
        """Its newest token to text; a stop string in it is an end."""
        detokenizer = self.texts.get(request.request_id)
        if detokenizer is None:
            return
        reason = request.finish_reason
        if reason != "stop":  # a stop id is no text
            request.text += detokenizer.push(request.tokens[-1])
        if reason:
            request.text += detokenizer.finish()
        if detokenizer.stopped and not reason:
            self.scheduler.finish(request, "stop")
        elif detokenizer.stopped:
            request.finish_reason = "stop"
