"""The subcommands of `nanoserve`, a file each; bench_url and bench_report are parts of bench.

`add(commands)` adds its arguments, and what it sets as `run` runs it; what that needs is imported
when it runs.
"""
