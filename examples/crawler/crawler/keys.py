"""Where things are in etcd.

::

    /crawler/resources/<resource>              what to crawl, and which Worker does it
    /crawler/assignments/<worker>/<resource>   the same for that Worker, who watches nothing else
    /crawler/results/<resource>                what came of it, written by the Worker
    /crawler/deleted/<resource>                that it was deleted, for a while
    /micro/registry/<service>/<node id>        who lives, in go-micro's layout, on their own leases

Neither names of resources nor ids of Workers hold a slash.
"""

from __future__ import annotations

ROOT = "/crawler/"
RESOURCES = ROOT + "resources/"
ASSIGNMENTS = ROOT + "assignments/"
RESULTS = ROOT + "results/"
DELETED = ROOT + "deleted/"
REGISTRY = "/micro/registry/"

MASTER_SERVICE = "crawler.master"
WORKER_SERVICE = "crawler.worker"


def resource(name: str) -> bytes:
    """Return the key of a resource."""
    return (RESOURCES + name).encode()


def assignments(worker: str) -> bytes:
    """Return the prefix of everything assigned to a Worker."""
    return f"{ASSIGNMENTS}{worker}/".encode()


def assignment(worker: str, name: str) -> bytes:
    """Return the key of the assignment of a resource to a Worker."""
    return assignments(worker) + name.encode()


def results(name: str) -> bytes:
    """Return the key of a resource's results."""
    return (RESULTS + name).encode()


def deleted(name: str) -> bytes:
    """Return the key that tells of a resource's deletion."""
    return (DELETED + name).encode()


def service(prefix: str, name: str) -> bytes:
    """Return the prefix of a service's nodes in the registry."""
    return f"{prefix.rstrip('/')}/{name.replace('/', '-')}/".encode()


def node(prefix: str, name: str, node_id: str) -> bytes:
    """Return the key of one node in the registry; slashes become dashes, as in go-micro."""
    return service(prefix, name) + node_id.replace("/", "-").encode()


def resource_of(key: bytes) -> str | None:
    """Return the name in a resource's key; None for any other key."""
    name = _after(key, RESOURCES)
    return None if name is None or "/" in name else name


def assignment_of(key: bytes) -> tuple[str, str] | None:
    """Return (Worker, resource) of an assignment's key; None for any other key."""
    rest = _after(key, ASSIGNMENTS)
    if rest is None or rest.count("/") != 1:
        return None
    worker, _, name = rest.partition("/")
    return (worker, name) if worker and name else None


def node_of(key: bytes, prefix: str, name: str) -> str | None:
    """Return the node id in a registry key of a service; None for any other key."""
    node_id = _after(key, service(prefix, name).decode())
    return None if node_id is None or "/" in node_id else node_id


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _after(key: bytes, prefix: str) -> str | None:
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return text.removeprefix(prefix) or None if text.startswith(prefix) else None
