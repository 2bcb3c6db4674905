"""Leader election for asyncio programs: `Session`, `Election`, `Observer`, and their ports.

What etcd's Go package `concurrency` offers, with deadlines that cannot outlive the lease, on
any store that implements `Coordinator`::

    async with EtcdCoordinator(["http://127.0.0.1:2379"]) as etcd, Session(etcd, ttl=5) as session:
        election = Election(session, "/resources/election")
        async with election:
            await election.campaign(b"master-2")
            while election.is_leader():          # asks the clock, each time
                await one_fenced_step(token=election.rev, key=election.key)

Nothing in here reads a file, opens a socket or knows etcd.
"""
