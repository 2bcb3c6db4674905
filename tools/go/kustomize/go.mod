module leader-sidecar/tools/kustomize

go 1.26.0
