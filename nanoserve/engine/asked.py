"""What an engine is asked for, looked at before any work: a ValueError says what is wanted."""

from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from os import PathLike
from typing import Any

from nanoserve.sampling import SamplingParams


def check_list(what: str, given: Any, wanted: str) -> None:
    """ValueError unless this is a list, a tuple or the like."""
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise ValueError(f"{what} {given!r:.60}: wanted {wanted}")


def check_params(params: Any) -> None:
    """ValueError unless these are SamplingParams."""
    if not isinstance(params, SamplingParams):
        raise ValueError(f"params are {params!r:.60}: wanted SamplingParams, one for each prompt")


def check_asked(prompt_ids: Any, params: Any) -> None:
    """ValueError for a prompt that is no row of ids, or params that are none."""
    if isinstance(prompt_ids, str | bytes) or not hasattr(prompt_ids, "__len__"):
        raise ValueError(f"the prompt is {prompt_ids!r:.60}: wanted a list of token ids")
    check_params(params)


def check_model(model: Any) -> None:
    """ValueError for what is neither a model nor the name or folder of one."""
    if not hasattr(model, "embed") and not isinstance(model, str | PathLike):
        wanted = "a Llama, or a checkpoint's name or folder"
        raise ValueError(f"the model is {model!r:.60}: wanted {wanted}")


def check_settings(caching: bool, **counts: Any) -> None:
    """ValueError for a setting that is not honoured."""
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise ValueError(f"{name} must be 1 or more, got {count!r}")
    if type(caching) is not bool:
        raise ValueError(f"enable_prefix_caching is no bool: {caching!r}")


def check_device(device: Any) -> None:
    """ValueError for a device that no engine is for."""
    kind, _, number = str(device).partition(":")
    if kind not in ("cpu", "cuda") or not (number or "0").isdecimal():
        raise ValueError(f"device is {device!r}, wanted cpu or cuda")


def check_names(engine: Callable, device: Any, names: Iterable[str]) -> None:
    """TypeError for settings that the engine on this device does not have."""
    known = [name for name in signature(engine).parameters if name not in ("model", "device")]
    if unknown := [name for name in names if name not in known]:
        what = f"on {device} there is no setting {', '.join(unknown)}"
        raise TypeError(f"{what}: there are {', '.join(known)}")


def new_pool(kind: Callable, config: Any, num_blocks: int, block_size: int, *where: Any) -> Any:
    """A pool of that kind. ValueError where there is no memory for it."""
    try:
        return kind(config, num_blocks, block_size, *where)
    except NotImplementedError:  # a practice notebook's blank says so itself
        raise
    except (RuntimeError, OverflowError) as error:
        size = config.kv_cache_bytes_per_token(where[0]) * block_size * num_blocks / 2**30
        what = f"a pool of {num_blocks} blocks of {block_size} tokens takes {size:,.1f} GiB"
        raise ValueError(f"{what}, and there is no room: give a smaller num_blocks") from error
