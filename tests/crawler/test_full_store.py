"""A Master on a real etcd that is full: what can be done to make room."""

from pathlib import Path

import pytest
from crawler import keys

from tests.crawler.crew import Crew, fields
from tests.integration.support import LONG
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.procs import wait_until

pytestmark = pytest.mark.integration

QUOTA = 1024 * 1024


def fill(cluster: EtcdCluster) -> None:
    """Put values until the store takes no more, and says so by an alarm."""
    number = 0
    while not cluster.etcdctl("put", f"/filling/{number}", "x" * 100_000, check=False).returncode:
        number += 1
    wait_until(lambda: "NOSPACE" in cluster.etcdctl("alarm", "list").stdout, "the alarm", LONG)


def test_a_full_store_refuses_what_is_added_and_takes_deletes(tmp_path: Path) -> None:
    require_etcd()
    with (
        EtcdCluster(EtcdOptions(quota_backend_bytes=QUOTA, no_fsync=True)) as own,
        Crew(own, tmp_path) as crew,
    ):
        (master,) = crew.start(2)
        crew.work("a")
        assert master.add("news").status_code == 200
        fill(own)
        refused = master.add("more")
        assert (refused.status_code, fields(refused)["changed_nothing"]) == (507, True)
        assert master.request("DELETE", "/resources/news").status_code == 200
        assert crew.get(keys.ROOT) == {}
