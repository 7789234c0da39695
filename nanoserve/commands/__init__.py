"""The subcommands of `nanoserve`, a file each.

`add(commands)` adds its arguments, and what it sets as `run` runs it; what that needs is imported
when it runs.
"""
