"""What a deployment in Kubernetes does once or now and then, each in a process of its own.

`deciding`, `sizing` and `rights` are pure: from what was seen they tell what to do. The rest looks
and does it.
"""
