"""The status page in a real browser, on real sidecars and a real etcd."""
