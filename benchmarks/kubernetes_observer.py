"""What another pod sees of a change of the leader: its label, and the Service that follows it.

`python kubernetes_observer.py SERVICE SELECTOR ELECTION ETCD` watches the pods of a selector, and
asks the Service again and again who answers, each time over a new connection. On port 8000 it tells
for each fencing token: since when its leader leads, by that leader's own word; when the watch has
shown its label; when the Service has first led to it. Asked for `/handover/ID/SECONDS` it answers,
and then has the leader hand over to ID: here and later, because the processes of a command would
begin and end beside what is measured.
Runs in a pod with the sidecar's image.
"""

import asyncio
import datetime as dt
import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sidecar.cli.reaching import reached
from sidecar.election.commands import Commands
from sidecar.settings import StoreSettings

PORT, STATUS = 8000, 4040
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ROLE, TERM = "leader-sidecar.io/role", "leader-sidecar.io/term"
ASK_EVERY = 0.05  # seconds; what is measured in seconds is that much too long at most
PATIENCE = 1.0  # seconds for a connection and its answer
WATCH_FOR = 6 * 3600  # seconds


class Seen:
    """Moments by fencing token, seconds since 1970; changed under its lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.moments: dict[str, dict[str, float]] = {}

    def note(self, token: str, what: str, at: float) -> None:
        """Take in what was seen, if it is the first time."""
        with self.lock:
            self.moments.setdefault(token, {}).setdefault(what, at)

    def told(self) -> bytes:
        """Return everything as JSON."""
        with self.lock:
            return json.dumps(self.moments).encode()


def watch(selector: str, seen: Seen) -> None:
    """Note when pods are labelled as the leader, until the API server ends the watch."""
    namespace, token = ((ACCOUNT / name).read_text() for name in ("namespace", "token"))
    connection = http.client.HTTPSConnection(
        os.environ["KUBERNETES_SERVICE_HOST"],
        int(os.environ["KUBERNETES_SERVICE_PORT"]),
        context=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")),
    )
    asked = {"watch": "1", "labelSelector": selector, "timeoutSeconds": str(WATCH_FOR)}
    path = f"/api/v1/namespaces/{namespace}/pods?{urllib.parse.urlencode(asked)}"
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    with connection.getresponse() as events:
        if events.status != http.client.OK:
            raise OSError(f"no watch: {events.status} {events.read(1000)!r}")
        for line in events:
            at = time.time()
            metadata = json.loads(line)["object"]["metadata"]
            if metadata.get("labels", {}).get(ROLE) == "leader":
                seen.note(metadata["annotations"][TERM], "labelled", at)


def keep_asking(service: str, seen: Seen) -> None:
    """Note when the Service leads to a leader, for ever."""
    address = socket.gethostbyname(service)  # once: it stays, and DNS is not what is measured
    while True:
        connection = http.client.HTTPConnection(address, STATUS, timeout=PATIENCE)
        try:
            connection.request("GET", "/leader", headers={"Connection": "close"})
            reply = connection.getresponse()
            body = reply.read()
            if reply.status == http.client.OK:
                at, status = time.time(), json.loads(body)
                since = dt.datetime.fromisoformat(status["since"]).timestamp()
                seen.note(str(status["token"]), "elected", since)
                seen.note(str(status["token"]), "answered", at)
        except (OSError, http.client.HTTPException):
            pass  # there is nobody behind the Service for a moment
        finally:
            connection.close()
        time.sleep(ASK_EVERY)


class Hand:
    """Gives the election commands, over a connection that stays open."""

    def __init__(self, election: str, endpoints: str) -> None:
        self._settings = StoreSettings.read({"election": election, "endpoints": endpoints})
        self._loop = asyncio.new_event_loop()
        self._commands: asyncio.Future[Commands] = self._loop.create_future()

    def run(self) -> None:
        """Hold the connection, for ever."""
        self._loop.run_until_complete(self._hold())

    def over(self, to: str, after: float) -> None:
        """Have the leader hand over after so many seconds; return at once."""
        asyncio.run_coroutine_threadsafe(self._over(to, after), self._loop)

    async def _hold(self) -> None:
        async with reached(self._settings) as etcd:
            self._commands.set_result(Commands(etcd, self._settings.election))
            await asyncio.Event().wait()

    async def _over(self, to: str, after: float) -> None:
        commands = await self._commands
        await asyncio.sleep(after)
        await commands.handover(to)


def main() -> None:
    """Watch, ask and answer until the pod is deleted."""
    service, selector, election, endpoints = sys.argv[1:]
    seen, hand = Seen(), Hand(election, endpoints)
    threading.Thread(target=hand.run, daemon=True).start()
    threading.Thread(target=keep_asking, args=(service, seen), daemon=True).start()
    watching = threading.Thread(target=watch, args=(selector, seen), daemon=True)
    watching.start()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/handover/"):
                _, _, to, after = self.path.split("/")
                hand.over(to, float(after))
            told = seen.told()
            status = http.client.OK if watching.is_alive() else http.client.SERVICE_UNAVAILABLE
            self.send_response(status)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("", PORT), Answer).serve_forever()


if __name__ == "__main__":
    main()
