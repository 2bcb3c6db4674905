module leader-sidecar.io/examples/leadership

go 1.21
