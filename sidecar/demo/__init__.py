"""The demonstration: an etcd and three sidecars as real processes, and somebody who disturbs them.

It is a user of the product like any other: it starts `leader-sidecar run`, reads status directories
and HTTP answers, and gives commands through etcd. What it saw, it judges by what is promised.
"""
