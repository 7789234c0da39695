"""Llama-3.2-1B rebuilt from its weight file up, one component a day, held against HuggingFace.

Importing this imports nothing else: `from nanoserve.model import Llama` is where it starts, and
`from nanoserve import LLM, SamplingParams` is the engine of it.

    the model       config, loader, layers, model: read in this order
    its text        generate, cache, sampling, params; text, with spelling and template; chat
    several         batch (packed into one row), together (written in one pass a token)
    its price       cost, products (by another library), forecast (of this machine)
    engine/         many texts at once: pool, blocks, scheduler, runner, engine, llm
    server/         many clients, over HTTP, as OpenAI's clients expect it
    cpu/            what few rows go through on a CPU, in loops that numba compiles
    kernels/        what a GPU runs, in Triton
    bench/          workloads, clocks, load
    the judge       reference (HuggingFace's model), comparison, signatures (what a mismatch looks
                    like), and checks/, which the book's comparison cells call
    checkpoints/    where weights come from, and files read without trust
    cli, commands/  the command `nanoserve`, and its subcommands
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    """LLM and SamplingParams, imported when they are asked for."""
    if name == "LLM":
        from nanoserve.engine.llm import LLM

        return LLM
    if name == "SamplingParams":
        from nanoserve.sampling import SamplingParams

        return SamplingParams
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
