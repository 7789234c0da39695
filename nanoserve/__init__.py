"""Llama-3.2-1B rebuilt from its weight file up, one component a day, held against HuggingFace.

Importing this imports nothing else: `from nanoserve.model import Llama` is where it starts.
"""

__version__ = "0.1.0"
