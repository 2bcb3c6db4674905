"""Elections with the same etcd share one connection, for as long as somebody uses it."""

import pytest

from sidecar.election.background import Background
from sidecar.errors import ConfigError
from sidecar.etcd.credentials import Credentials
from sidecar.operator.spec import Store
from sidecar.operator.stores import Stores
from tests.operator.test_hub import Clock
from tests.support.procs import LOOPBACK

HERE = Store((f"http://{LOOPBACK}:9",))  # nobody is asked
NOBODY, USER = Credentials(), Credentials(user="a", password="b")  # noqa: S106 - no secret


async def test_one_connection_is_shared_by_all_with_the_same_etcd_and_credentials() -> None:
    async with Background() as tasks:
        stores = Stores(Clock(), tasks)
        # What an Election says besides belongs to the credentials.
        same = Store(HERE.endpoints, tls_secret="other")  # noqa: S106 - the name of one
        async with stores.connected(HERE, NOBODY) as one:
            async with stores.connected(same, NOBODY) as other:
                assert other is one
                assert len(stores) == 1
            async with stores.connected(HERE, USER) as theirs:
                assert theirs is not one
                assert theirs.coordinator is not one.coordinator
                assert len(stores) == 2
            assert len(stores) == 1
            assert not one.unused.is_set()
        assert len(stores) == 0
        assert one.unused.is_set()
        async with stores.connected(HERE, NOBODY) as again:
            assert again is not one


async def test_an_endpoint_that_cannot_be_one_is_told_by_its_field() -> None:
    async with Background() as tasks:
        stores = Stores(Clock(), tasks)
        with pytest.raises(ConfigError, match=r"spec\.etcd\.endpoints"):
            async with stores.connected(Store(("ftp://x",)), NOBODY):
                pass
        assert len(stores) == 0
