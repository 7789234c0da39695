"""Many requests at once, from Day 14 on. Of the GPU's, ahead and gpu, the book tells in Week 5.

pool        keys and values of all texts, in blocks
decode      the same pool; single tokens attend together
blocks      which blocks are whose
request     what is known of a request, and what its caller is told
plan        one step
scheduler   who reads how many tokens in it
audit       what must be true between any two
rehearsal   what it would do to a mix of requests, without a model
runner      the pass of the model for it
asked       what may be asked of it, looked at before any work
desk        where requests come in, and are let go
engine      all of it, a step at a time
prefix      what was read before, found again
llm         a list of prompts, answered
safety      what a server asks of it beside its steps
ahead       an engine that plans the next step while this one runs
gpu         that engine on a GPU, by the kernels
"""
