"""Many clients at once, over HTTP. What is not built in the book, from Day 19 on, is plumbing.

answer      what a client waits for, and the errors that it may get
thread      steps the engine; nobody else touches it
worker      the engine, for an event loop that never waits for it
metrics     what it counts and times of all that, for /metrics
app         the addresses, and the one way that all answers go
stream      what is sent, when, and for how long
writer      the chunks of a stream, and whole answers
service, prompts, wire, protocol, off, errors, gate, addresses, page.html: plumbing of the app
heads       what is read of a connection before the app sees it
run         the app as a process: its socket, its signals, its end
"""
