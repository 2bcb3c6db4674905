"""The ways out: status file, HTTP, metrics, log lines. One module for each.

Every output follows the latest-value feed of `ElectionState` and asks the clock at each use
whether the term still runs; none of them can delay a step-down.
"""
