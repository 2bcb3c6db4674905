"""What the sidecar tells Kubernetes about its own pod: label, annotations, Events.

Plain HTTPS to the API server with the pod's service account. It follows the feed of states like
every output, so it can be slow, refused or cut off without the election noticing.
"""
