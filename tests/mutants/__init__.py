"""Bugs planted in the book's code, one at a time, and the runs that must notice each."""
