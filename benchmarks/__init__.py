"""`make bench`: the measured figures of the README, ours beside etcd's own Go library.

`python -m benchmarks` starts an etcd, runs every bench against it, each candidate a process of its
own, and prints one table. Nothing here is a test: it measures, and says what was reached.
"""
