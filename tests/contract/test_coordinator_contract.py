"""What every `Coordinator` must do; the same bodies run on the fake and on real etcd.

The simulation is to be trusted only for what is proven here.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence

import pytest

from sidecar.core.store import (
    Batch,
    Delete,
    Event,
    Guard,
    KeyValue,
    Put,
    Range,
    Txn,
    TxnReply,
    Unchanged,
)
from sidecar.election.ports import Coordinator
from sidecar.errors import Compacted, LeaseExists, LeaseNotFound, Rejected
from tests.contract.conftest import Compact, Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]  # etcd may have to be built

SOON = 10.0
TTL = 5.0
ETCD_LEAST_TTL = 2.0
LARGE = 1_500_000


def new_prefix() -> bytes:
    return f"/contract/{secrets.token_hex(8)}/".encode()


def new_lease() -> int:
    return secrets.randbits(62) + 1


def end_of(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes([prefix[-1] + 1])


async def granted(store: Coordinator, ttl: float = TTL) -> int:
    lease = new_lease()
    await store.grant(lease, ttl, timeout=SOON)
    return lease


async def put(store: Coordinator, key: bytes, value: bytes = b"", lease: int = 0) -> int:
    """Put a key; return the revision at which it was put."""
    return (await txn(store, Put(key, value, lease))).header.revision


async def txn(
    store: Coordinator, *then: Put | Delete | Range, guards: Sequence[Guard | Unchanged] = ()
) -> TxnReply:
    return await store.txn(Txn(tuple(guards), then), timeout=SOON)


async def get(store: Coordinator, key: bytes) -> KeyValue | None:
    (found,) = (await txn(store, Range(key))).ranges
    return found[0] if found else None


async def next_events(batches: AsyncIterator[Batch], count: int = 1) -> list[Event]:
    """Return events until there are `count` of them; a batch is never split."""
    events: list[Event] = []
    async with asyncio.timeout(SOON):
        while len(events) < count:
            events += (await anext(batches)).events
    return events


def names(events: Sequence[Event]) -> list[tuple[bool, bytes]]:
    return [(event.deleted, event.kv.key) for event in events]


# Leases


def test_a_granted_lease_has_at_least_the_ttl_asked_for(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        assert await etcd.grant(new_lease(), TTL, timeout=SOON) == TTL

    store.run(case)


def test_a_ttl_below_the_least_is_raised_and_told(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        lease = new_lease()
        assert await etcd.grant(lease, 1.0, timeout=SOON) == ETCD_LEAST_TTL
        assert (await etcd.prove(lease, [], timeout=SOON)).ttl == ETCD_LEAST_TTL

    store.run(case)


def test_a_lease_id_that_is_taken_is_refused(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        lease = await granted(etcd)
        with pytest.raises(LeaseExists):
            await etcd.grant(lease, TTL, timeout=SOON)

    store.run(case)


def test_a_revoke_deletes_the_keys_and_may_be_repeated(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix, lease = new_prefix(), await granted(etcd)
        await put(etcd, prefix + b"a", lease=lease)
        await etcd.revoke(lease, timeout=SOON)
        assert await get(etcd, prefix + b"a") is None
        await etcd.revoke(lease, timeout=SOON)

    store.run(case)


def test_a_revoked_id_can_be_granted_again(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        lease = await granted(etcd)
        await etcd.revoke(lease, timeout=SOON)
        assert await etcd.grant(lease, TTL, timeout=SOON) == TTL

    store.run(case)


def test_a_lease_that_nobody_renews_ends_and_takes_its_keys(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix, lease = new_prefix(), await granted(etcd, ETCD_LEAST_TTL)
        revision = await put(etcd, prefix + b"a", lease=lease)
        async with etcd.watch(prefix, end_of(prefix), start_revision=revision + 1) as batches:
            assert names(await next_events(batches)) == [(True, prefix + b"a")]
        assert (await etcd.prove(lease, [], timeout=SOON)).ttl <= 0

    store.run(case)


def test_a_key_put_again_on_another_lease_hangs_on_that_one_only(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix, old, new = new_prefix(), await granted(etcd), await granted(etcd)
        await put(etcd, prefix + b"a", lease=old)
        await put(etcd, prefix + b"a", lease=new)
        await etcd.revoke(old, timeout=SOON)
        kv = await get(etcd, prefix + b"a")
        assert kv is not None
        assert kv.lease == new

    store.run(case)


# Proofs


def test_a_proof_of_a_live_lease_reads_the_keys_after_the_renewal(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix, lease = new_prefix(), await granted(etcd)
        token = await put(etcd, prefix + b"own", b"v", lease)
        proof = await etcd.prove(lease, [prefix + b"own", prefix + b"none"], timeout=SOON)
        assert proof.ttl == TTL
        assert proof.read is not None
        assert proof.read.ranges == (
            (KeyValue(prefix + b"own", b"v", token, token, lease),),
            (),
        )
        assert proof.read.header.raft_term == proof.renewal_term
        assert proof.read.header.revision >= token

    store.run(case)


def test_a_proof_without_keys_reads_nothing(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        proof = await etcd.prove(await granted(etcd), [], timeout=SOON)
        assert (proof.ttl, proof.read) == (TTL, None)

    store.run(case)


def test_a_proof_of_an_absent_lease_says_so_and_reads_nothing(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        proof = await etcd.prove(new_lease(), [b"/contract/any"], timeout=SOON)
        assert proof.ttl <= 0
        assert proof.read is None

    store.run(case)


# Transactions


@pytest.mark.parametrize("holds", [True, False])
def test_guards_choose_the_branch(store: Store, holds: bool) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        token = await put(etcd, prefix + b"a")
        guards = (Guard(prefix + b"a", token), Guard(prefix + b"none", 0 if holds else token))
        request = Txn(guards, (Put(prefix + b"then", b""),), (Put(prefix + b"else", b""),))
        reply = await etcd.txn(request, timeout=SOON)
        assert reply.succeeded is holds
        assert (await get(etcd, prefix + b"then") is not None) is holds
        assert (await get(etcd, prefix + b"else") is not None) is not holds

    store.run(case)


def test_a_guard_names_the_creation_not_the_last_change(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        token = await put(etcd, prefix + b"a", b"1")
        changed = await put(etcd, prefix + b"a", b"2")
        assert (await txn(etcd, guards=[Guard(prefix + b"a", token)])).succeeded
        assert not (await txn(etcd, guards=[Guard(prefix + b"a", changed)])).succeeded
        kv = await get(etcd, prefix + b"a")
        assert kv == KeyValue(prefix + b"a", b"2", token, changed)

    store.run(case)


def test_an_unchanged_guard_names_the_last_change_not_the_creation(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        key = prefix + b"a"
        assert (await txn(etcd, guards=[Unchanged(key, 0)])).succeeded
        created = await put(etcd, key, b"1")
        changed = await put(etcd, key, b"2")
        assert (await txn(etcd, guards=[Unchanged(key, changed), Guard(key, created)])).succeeded
        for revision in (0, created):
            assert not (await txn(etcd, guards=[Unchanged(key, revision)])).succeeded

    store.run(case)


def test_a_key_deleted_and_put_again_is_another_creation(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        first = await put(etcd, prefix + b"a")
        await txn(etcd, Delete(prefix + b"a"))
        second = await put(etcd, prefix + b"a")
        assert second > first
        assert not (await txn(etcd, guards=[Guard(prefix + b"a", first)])).succeeded

    store.run(case)


def test_a_put_on_an_absent_lease_is_refused_and_nothing_of_its_txn_done(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        with pytest.raises(LeaseNotFound):
            await txn(etcd, Put(prefix + b"a", b""), Put(prefix + b"b", b"", new_lease()))
        assert await get(etcd, prefix + b"a") is None

    store.run(case)


def test_an_absent_lease_in_the_other_branch_does_no_harm(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        request = Txn((), (Put(prefix + b"a", b""),), (Put(prefix + b"b", b"", new_lease()),))
        assert (await etcd.txn(request, timeout=SOON)).succeeded

    store.run(case)


def test_ranges_see_what_the_same_txn_did_before_them(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        await put(etcd, prefix + b"b")
        whole = Range(prefix, end_of(prefix))
        reply = await txn(etcd, whole, Put(prefix + b"a", b""), whole, Delete(prefix + b"b"), whole)
        keys = [[kv.key.removeprefix(prefix) for kv in found] for found in reply.ranges]
        assert keys == [[b"b"], [b"a", b"b"], [b"a"]]

    store.run(case)


def test_a_range_comes_in_the_order_of_keys_up_to_its_limit(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        for name in (b"c", b"a", b"b"):
            await put(etcd, prefix + name)
        reply = await txn(etcd, Range(prefix, end_of(prefix), limit=2))
        assert [kv.key for kv in reply.ranges[0]] == [prefix + b"a", prefix + b"b"]

    store.run(case)


def test_one_txn_is_one_revision(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        before = await put(etcd, prefix + b"old")
        reply = await txn(
            etcd, Put(prefix + b"a", b""), Delete(prefix + b"old"), Put(prefix + b"b", b"")
        )
        assert reply.header.revision == before + 1
        kvs = (await etcd.read(prefix, end_of(prefix), timeout=SOON)).kvs
        assert [(kv.key, kv.create_revision) for kv in kvs] == [
            (prefix + b"a", before + 1),
            (prefix + b"b", before + 1),
        ]

    store.run(case)


def test_what_changes_nothing_makes_no_revision(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        before = await put(etcd, prefix + b"a")
        for harmless in (Delete(prefix + b"none"), Delete(prefix + b"b", prefix + b"c")):
            assert (await txn(etcd, harmless)).header.revision == before
        assert (await txn(etcd, Range(prefix + b"a"))).header.revision == before
        await etcd.revoke(await granted(etcd), timeout=SOON)
        assert (await txn(etcd, Range(prefix + b"a"))).header.revision == before

    store.run(case)


def test_a_range_delete_takes_the_first_and_leaves_the_end(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        for name in (b"a", b"b", b"c"):
            await put(etcd, prefix + name)
        await txn(etcd, Delete(prefix + b"a", prefix + b"c"))
        kvs = (await etcd.read(prefix, end_of(prefix), timeout=SOON)).kvs
        assert [kv.key for kv in kvs] == [prefix + b"c"]

    store.run(case)


def test_one_key_twice_in_a_branch_is_refused(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        key = new_prefix() + b"a"
        for second in (Put(key, b"2"), Delete(key), Delete(key, key + b"\0")):
            with pytest.raises(Rejected):
                await txn(etcd, Put(key, b"1"), second)
        assert await get(etcd, key) is None

    store.run(case)


def test_deletes_of_one_key_may_repeat(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        key = new_prefix() + b"a"
        before = await put(etcd, key)
        assert (await txn(etcd, Delete(key), Delete(key))).header.revision == before + 1

    store.run(case)


@pytest.mark.parametrize("part", ["guards", "operations"])
def test_128_parts_are_the_limit(store: Store, part: str) -> None:
    def request(prefix: bytes, count: int) -> Txn:
        keys = [prefix + b"%03d" % number for number in range(count)]
        if part == "guards":
            return Txn(guards=tuple(Guard(key, 0) for key in keys))
        return Txn(then=tuple(Put(key, b"") for key in keys))

    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        assert (await etcd.txn(request(prefix, 128), timeout=SOON)).succeeded
        with pytest.raises(Rejected):
            await etcd.txn(request(new_prefix(), 129), timeout=SOON)

    store.run(case)


def test_a_txn_without_a_key_is_refused(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        with pytest.raises(Rejected):
            await txn(etcd, guards=[Guard(b"", 0)])

    store.run(case)


# Reads


def test_a_read_of_more_keys_than_a_page_is_of_one_revision(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        for batch in range(17):
            keys = [prefix + b"%04d" % (128 * batch + number) for number in range(128)]
            await txn(etcd, *(Put(key, key) for key in keys))
        reply = await etcd.read(prefix, end_of(prefix), timeout=SOON)
        assert [kv.key for kv in reply.kvs] == [prefix + b"%04d" % n for n in range(128 * 17)]
        assert all(kv.value == kv.key for kv in reply.kvs)
        assert reply.header.revision == max(kv.mod_revision for kv in reply.kvs)

    store.run(case)


def test_a_read_of_keys_only_leaves_the_values_out(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix, lease = new_prefix(), await granted(etcd)
        token = await put(etcd, prefix + b"a", b"value", lease)
        reply = await etcd.read(prefix, end_of(prefix), timeout=SOON, keys_only=True)
        assert reply.kvs == (KeyValue(prefix + b"a", b"", token, token, lease),)

    store.run(case)


def test_three_large_values_are_read_and_watched(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        async with etcd.watch(prefix, end_of(prefix), start_revision=0) as batches:
            for name in (b"a", b"b", b"c"):
                await put(etcd, prefix + name, name * LARGE)
            events = await next_events(batches, 3)
        assert [len(event.kv.value) for event in events] == [LARGE] * 3
        kvs = (await etcd.read(prefix, end_of(prefix), timeout=SOON)).kvs
        assert [kv.value[:1] * LARGE == kv.value for kv in kvs] == [True] * 3

    store.run(case)


# Watches


def test_a_watch_from_now_sees_what_comes_after_it_is_entered(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix, lease = new_prefix(), await granted(etcd)
        await put(etcd, prefix + b"before")
        async with etcd.watch(prefix, end_of(prefix), start_revision=0) as batches:
            token = await put(etcd, prefix + b"a", b"v", lease)
            (event,) = await next_events(batches)
        assert event == Event(KeyValue(prefix + b"a", b"v", token, token, lease))

    store.run(case)


def test_a_watch_from_a_revision_replays_what_came_since_in_order(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        await put(etcd, prefix + b"early")
        start = await put(etcd, prefix + b"a", b"1")
        await put(etcd, prefix + b"a", b"2")
        await txn(etcd, Delete(prefix + b"a"))
        async with etcd.watch(prefix, end_of(prefix), start_revision=start) as batches:
            past = await next_events(batches, 3)
            await put(etcd, prefix + b"b")
            (new,) = await next_events(batches)
        assert [event.kv.mod_revision for event in past] == [start, start + 1, start + 2]
        assert [event.kv.value for event in past[:2]] == [b"1", b"2"]
        assert names([past[2], new]) == [(True, prefix + b"a"), (False, prefix + b"b")]

    store.run(case)


def test_a_watch_sees_its_range_only(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        async with etcd.watch(prefix + b"b", prefix + b"d", start_revision=0) as batches:
            for name in (b"a", b"d", b"b", b"c"):
                await put(etcd, prefix + name)
            seen = await next_events(batches, 2)
        assert names(seen) == [(False, prefix + b"b"), (False, prefix + b"c")]

    store.run(case)


def test_all_events_of_a_txn_come_in_one_batch(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        keys = [prefix + b"%03d" % number for number in range(100)]
        revision = (await txn(etcd, *(Put(key, b"") for key in keys))).header.revision
        async with etcd.watch(prefix, end_of(prefix), start_revision=revision + 1) as batches:
            await txn(etcd, *(Delete(key) for key in keys))
            async with asyncio.timeout(SOON):
                batch = await anext(batches)
        assert names(batch.events) == [(True, key) for key in keys]
        assert {event.kv.mod_revision for event in batch.events} == {revision + 1}
        assert batch.revision >= revision + 1

    store.run(case)


def test_all_deletes_of_a_revoke_come_in_one_batch(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix, lease = new_prefix(), await granted(etcd)
        keys = [prefix + b"%d" % number for number in range(9)]
        reply = await txn(etcd, *(Put(key, b"", lease) for key in reversed(keys)))
        start = reply.header.revision + 1
        async with etcd.watch(prefix, end_of(prefix), start_revision=start) as batches:
            await etcd.revoke(lease, timeout=SOON)
            async with asyncio.timeout(SOON):
                batch = await anext(batches)
        assert names(batch.events) == [(True, key) for key in keys]
        assert {event.kv.mod_revision for event in batch.events} == {start}

    store.run(case)


def test_a_watch_from_a_compacted_revision_says_so(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        first = await put(etcd, prefix + b"a", b"1")
        last = await put(etcd, prefix + b"a", b"2")
        await put(etcd, prefix + b"a", b"3")
        await compact(last)
        with pytest.raises(Compacted) as compacted:
            async with etcd.watch(prefix, end_of(prefix), start_revision=first) as batches:
                await next_events(batches)
        assert compacted.value.revision == last
        async with etcd.watch(prefix, end_of(prefix), start_revision=last + 1) as batches:
            assert [event.kv.value for event in await next_events(batches)] == [b"3"]

    store.run(case)


def test_a_watch_from_a_future_revision_waits_for_it(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        start = await put(etcd, prefix + b"a") + 2
        async with etcd.watch(prefix, end_of(prefix), start_revision=start) as batches:
            await put(etcd, prefix + b"too early")
            await put(etcd, prefix + b"b")
            assert names(await next_events(batches)) == [(False, prefix + b"b")]

    store.run(case)


def test_a_compaction_does_not_end_a_watch_that_keeps_up(store: Store) -> None:
    async def case(etcd: Coordinator, compact: Compact) -> None:
        prefix = new_prefix()
        async with etcd.watch(prefix, end_of(prefix), start_revision=0) as batches:
            last = await put(etcd, prefix + b"a")
            await next_events(batches)
            await compact(last)
            await put(etcd, prefix + b"b")
            assert names(await next_events(batches)) == [(False, prefix + b"b")]

    store.run(case)
