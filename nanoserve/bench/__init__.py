"""What `nanoserve bench` measures: workloads, the clock around the engine and HuggingFace beside
it, which Day 26 builds; a server at its address (load), and a queue on paper (queueing), Day 21.

A workload is a list of conversations, each of one turn or more; a turn's prompt is all that was
said in its conversation before, and its own new ids. A plain request is a conversation of one turn.
"""
