"""Many requests at once. Every module here is built in the book, from Day 14 on.

pool        keys and values of all texts, in blocks
blocks      which blocks are whose
"""
