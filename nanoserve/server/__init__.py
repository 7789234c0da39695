"""Many clients at once. Every module here is built in the book, from Day 19 on.

answer      what a client waits for, and the errors that it may get
thread      steps the engine; nobody else touches it
worker      the engine, for an event loop that never waits for it
"""
