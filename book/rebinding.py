"""Hands what a cell has defined anew to whoever holds the old: a part of book/live.py."""

import sys
import types
from collections.abc import Iterator


def rebind(name: str, old: object, new: object) -> None:
    """Put `new` where a loaded nanoserve module has `old`: as a global, or a function's default."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").split(".")[0] != "nanoserve":
            continue
        for key, value in list(vars(module).items()):
            if value is old and (key == name or callable(old)):
                setattr(module, key, new)
        if callable(old):
            for function in functions(module):
                swap_defaults(function, old, new)


def functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    """A module's functions and methods."""
    for value in vars(module).values():
        inner = vars(value).values() if isinstance(value, type) else [value]
        for function in inner:
            function = getattr(function, "__func__", function)
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                yield function


def swap_defaults(function: types.FunctionType, old: object, new: object) -> None:
    """Replace a default value of a function's arguments."""
    if function.__defaults__:
        function.__defaults__ = tuple(new if v is old else v for v in function.__defaults__)
    for key, value in (function.__kwdefaults__ or {}).items():
        if value is old:
            function.__kwdefaults__[key] = new
