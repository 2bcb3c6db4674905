"""The operator: makes elections things that Kubernetes knows, and is never needed by them.

What it decides is pure and stands in modules without I/O: `spec`, `facts`, `view` (what there is),
`status`, `repair`, `moves`, `slices`, `story` (what shall be), `injection`, `eviction` (admission).
Around them: `watching` is the home of kopf, `api` that of `kubernetes`, `reconciling` carries out
what was decided, `leading` lets one replica do that, `admission` answers the API server in every
replica. Nothing in here deletes a key in etcd: moves and pauses are asked of the candidates.
"""
