"""An endpoint that is a name with several addresses, of which one is dead."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.etcd_cluster import EtcdCluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PROGRAM = """
import asyncio, sys
from sidecar.election import Election, Session
from sidecar.etcd import EtcdCoordinator

async def main():
    async with EtcdCoordinator(f"http://etcd.test:{sys.argv[1]}") as etcd, Session(etcd) as session:
        async with Election(session, "/names/several") as election:
            for _ in range(2):  # the second time the live address is in use already
                await election.campaign("a")
                print("leads", election.is_leader(), etcd.width, flush=True)
                await election.resign()

asyncio.run(main())
"""


def test_a_name_with_a_dead_address_beside_a_live_one_costs_nothing(
    one_member: EtcdCluster, tmp_path: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a hosts file of one's own needs root and unshare")
    hosts, program = tmp_path / "hosts", tmp_path / "program.py"
    hosts.write_text("127.0.0.2 etcd.test\n127.0.0.1 etcd.test\n127.0.0.1 localhost\n")
    program.write_text(PROGRAM)
    port = one_member.endpoints[0].rsplit(":", 1)[1]
    inside = f"mount --bind {hosts} /etc/hosts && exec {sys.executable} {program} {port}"
    done = subprocess.run(
        ["unshare", "--mount", "--", "sh", "-c", inside],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "permission denied" in done.stderr.lower():
        pytest.skip(f"mounts are not allowed here: {done.stderr.strip()}")
    assert done.stdout == "leads True 2\nleads True 2\n", done.stderr
