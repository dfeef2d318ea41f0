"""Random calls of the public functions and of the raw operators: an answer or an error, never a signal.

    python -m tests.robustness.fuzz public --calls 100000
    python -m tests.robustness.fuzz raw --calls 100000 --seed 7

A call starts from one that is right; then some of its arguments are made wrong. It follows from the seed and
its number alone, so that one that fails can be made again: `--first N --calls 1`. Calls are made in a process
of their own, which has a limit of memory, and which is watched: a call of more than 20 seconds is a hang. An
answer has no NaN where nothing of what was given has one; errors are ValueError, TypeError, RuntimeError or
MemoryError, with a text; a call that is right is not refused.
"""
