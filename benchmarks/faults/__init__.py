"""Faults at random moments over small workloads, and an oracle that knows the right end of each.

    make faults ROUNDS=100 SEED=7

A round is one small piece of work that is struck by faults, resumed until it is done, and looked at. It is a function
of the seed and its number, so `--only NUMBER` plays it again. docs/reliability.md says what is promised and was seen.
"""
