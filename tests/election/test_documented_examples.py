"""The examples in the README and in the library's docstring, run as they are written."""

import ast
import asyncio
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import sidecar.election
from sidecar.core.store import Delete, Guard, Put, Txn
from sidecar.election import Election, Session
from sidecar.etcd import EtcdCoordinator
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]  # etcd may have to be built

ROOT = Path(__file__).resolve().parents[2]
WITHIN = 60.0
WRITTEN = "http://127.0.0.1:2379"  # where the examples say that etcd is
KEY = "/resources/election"


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as made:
        yield made


def with_endpoint(example: str, cluster: EtcdCluster) -> str:
    assert WRITTEN in example
    return example.replace(WRITTEN, cluster.endpoints[0])


def test_the_program_in_the_readme_leads_and_resigns(cluster: EtcdCluster) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (program,) = [block for block in blocks if "sidecar.election" in block]
    done = subprocess.run(
        [sys.executable, "-c", with_endpoint(program, cluster)],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
        cwd=ROOT,
        env={"PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"leading with token \d+ under {KEY}/[0-9a-f]+\n", done.stdout), (
        done.stdout
    )
    assert cluster.etcdctl("get", f"{KEY}/", "--prefix", "--keys-only").stdout == ""
    assert "found 0 leases" in cluster.etcdctl("lease", "list").stdout


@pytest.fixture
async def etcd(cluster: EtcdCluster) -> AsyncIterator[EtcdCoordinator]:
    async with EtcdCoordinator(cluster.endpoints) as made:
        yield made


async def test_the_example_in_the_docstring_takes_fenced_steps_while_it_leads(
    cluster: EtcdCluster, etcd: EtcdCoordinator
) -> None:
    steps: list[int] = []

    async def one_fenced_step(key: str, token: int) -> None:
        steps.append(token)
        own = key.encode()
        write = Txn((Guard(own, token),), (Put(b"/fenced", str(len(steps)).encode()),))
        assert (await etcd.txn(write, timeout=WITHIN)).succeeded
        if len(steps) == 3:
            await etcd.txn(Txn(then=(Delete(own),)), timeout=WITHIN)  # it hears, and stops
        await asyncio.sleep(0.01)

    example = with_endpoint(_example_of(sidecar.election), cluster)
    async with asyncio.timeout(WITHIN):
        await _function(example, one_fenced_step)()
    assert len(steps) >= 3
    assert len(set(steps)) == 1
    assert cluster.etcdctl("get", f"{KEY}/", "--prefix", "--keys-only").stdout == ""


def _example_of(module: Any) -> str:
    text = inspect.getdoc(module)
    assert text is not None
    (example,) = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", text)
    return textwrap.dedent(example)


def _function(body: str, step: Any) -> Callable[[], Coroutine[Any, Any, None]]:
    source = "async def example():\n" + textwrap.indent(body, "    ")
    names: dict[str, Any] = {
        "EtcdCoordinator": EtcdCoordinator,
        "Session": Session,
        "Election": Election,
        "one_fenced_step": step,
    }
    exec(compile(ast.parse(source), "example", "exec"), names)  # noqa: S102 - our own docstring
    function: Callable[[], Coroutine[Any, Any, None]] = names["example"]
    return function
