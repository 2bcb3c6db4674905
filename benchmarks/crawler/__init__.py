"""Load on the crawler example while its leader changes: `python -m benchmarks.crawler`.

The load comes from locust; here is what disturbs the system meanwhile, and what judges it after.
"""
