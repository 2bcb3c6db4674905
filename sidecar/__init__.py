"""leader-sidecar: leader election in etcd for any program, as a container beside it.

Public libraries: `sidecar.client` (for programs beside the sidecar, standard library only),
`sidecar.election` and `sidecar.etcd` (for programs that campaign themselves). Importing this
package imports nothing else, so that the first stays light.
"""

__version__ = "0.1.0"
