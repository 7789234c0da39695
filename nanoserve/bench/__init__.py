"""What `nanoserve bench` measures: workloads, the clock around the engine, HuggingFace beside it;
a server at its address (load), and a queue on paper (queueing), which Day 21 builds.

A workload is a list of conversations, each of one turn or more; a turn's prompt is all that was
said in its conversation before, and its own new ids. A plain request is a conversation of one turn.
"""
