"""The judge where no checkpoint goes: odd sizes, other dtypes, bad input, against HuggingFace.

A chapter's comparison cell compares every layer of the checkpoints, and calls a module of these
for the rest. HuggingFace comes in through nanoserve.reference, which alone imports it.
"""
