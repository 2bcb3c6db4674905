"""Each verb of the bridge does what it says, seen from both of its sides."""

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

from tests.support.bridge import MOST_QUEUED, Bridge, Way
from tests.support.procs import LOOPBACK, PATIENCE, free_port, wait_until

MORE_THAN_BUFFERS = 16 * 1024 * 1024  # bytes
A_WHILE = 0.15  # seconds in which nothing may come; too short can only hide a bug


class Echo(socketserver.ThreadingTCPServer):
    """Remembers what it hears and says it again."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heard = bytearray()
        super().__init__((LOOPBACK, 0), Answer)

    @property
    def port(self) -> int:
        port: int = self.server_address[1]
        return port


class Answer(socketserver.BaseRequestHandler):
    server: Echo

    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.server.heard += data
                self.request.sendall(data)
        except ConnectionError:
            pass  # the bridge dropped us


class Talker:
    """A client of the echo behind the bridge."""

    def __init__(self, bridge: Bridge, *, receive_buffer: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.connect((LOOPBACK, bridge.port))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def hear(self, count: int) -> bytes:
        heard = b""
        while len(heard) < count and (data := self._socket.recv(count - len(heard))):
            heard += data
        return heard

    def ask(self, data: bytes) -> bytes:
        self.say(data)
        return self.hear(len(data))

    def hears_nothing(self) -> bool:
        self._socket.settimeout(A_WHILE)
        try:
            self._socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)
        return False

    def hear_all_there_is(self) -> int:
        """Read until nothing comes for a while; the number of bytes."""
        self._socket.settimeout(A_WHILE)
        count = 0
        try:
            while data := self._socket.recv(65536):
                count += len(data)
        except TimeoutError:
            return count
        finally:
            self._socket.settimeout(PATIENCE)
        raise AssertionError("the connection ended")

    def is_cut_off(self) -> bool:
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        linger_no_time = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
        self._socket.close()

    def stop_talking(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def bridge(echo: Echo) -> Iterator[Bridge]:
    with Bridge(LOOPBACK, echo.port) as made:
        yield made


def test_bytes_pass_in_both_directions(bridge: Bridge) -> None:
    with Talker(bridge) as talker:
        assert talker.ask(b"hello") == b"hello"
        assert (bridge.connections, bridge.accepted) == (1, 1)
    wait_until(lambda: bridge.connections == 0, "the connection is closed behind the bridge, too")


def test_more_than_all_buffers_hold_arrives_whole_at_a_slow_reader(bridge: Bridge) -> None:
    said = bytes(range(251)) * (MORE_THAN_BUFFERS // 251)  # 251 is prime: a lost chunk shows
    with Talker(bridge, receive_buffer=65536) as talker:
        speaker = threading.Thread(target=talker.say, args=(said,))
        speaker.start()
        wait_until(lambda: queued_replies(bridge) >= MOST_QUEUED, "the bridge cannot get rid of it")
        assert talker.hear(len(said)) == said
        speaker.join()


def queued_replies(bridge: Bridge) -> int:
    pipes = [pipe for connection in list(bridge._connections) for pipe in connection.pipes]
    return sum(pipe.queued for pipe in pipes if pipe.way is Way.REPLIES)


def test_the_end_of_one_direction_leaves_the_other_open(bridge: Bridge) -> None:
    bridge.hold_replies()
    with Talker(bridge) as talker:
        talker.say(b"last words")
        talker.stop_talking()
        bridge.resume()
        assert talker.hear(10) == b"last words"
        assert talker.is_cut_off()


def test_drop_closes_connections_and_takes_new_ones(bridge: Bridge) -> None:
    with Talker(bridge) as old:
        assert old.ask(b"a") == b"a"
        bridge.drop()
        assert old.is_cut_off()
        with Talker(bridge) as new:
            assert new.ask(b"b") == b"b"


def test_pause_keeps_everything_for_resume(bridge: Bridge, echo: Echo) -> None:
    with Talker(bridge) as old:
        assert old.ask(b"a") == b"a"
        bridge.pause()
        old.say(b"b")
        with Talker(bridge) as new:
            new.say(b"c")
            assert old.hears_nothing()
            assert new.hears_nothing()
            assert bytes(echo.heard) == b"a"
            bridge.resume()
            assert old.hear(1) == b"b"
            assert new.hear(1) == b"c"


def test_pause_holds_what_waits_in_the_bridge_already(bridge: Bridge) -> None:
    said = bytes(MORE_THAN_BUFFERS)
    with Talker(bridge, receive_buffer=65536) as talker:
        speaker = threading.Thread(target=talker.say, args=(said,))
        speaker.start()
        wait_until(lambda: queued_replies(bridge) >= MOST_QUEUED, "the bridge cannot get rid of it")
        bridge.pause()
        queued = queued_replies(bridge)
        heard = talker.hear_all_there_is()
        assert queued_replies(bridge) == queued
        bridge.resume()
        assert heard + len(talker.hear(len(said) - heard)) == len(said)
        speaker.join()


def test_pause_holds_the_news_of_a_reset(bridge: Bridge) -> None:
    with Talker(bridge) as talker:
        assert talker.ask(b"a") == b"a"
        bridge.pause()
        talker.reset()
        with pytest.raises(AssertionError, match="not within"):
            wait_until(lambda: bridge.connections == 0, "the end is seen", A_WHILE)
        bridge.resume()
        wait_until(lambda: bridge.connections == 0, "the reset is passed on")


def test_a_black_hole_swallows_and_breaks_only_what_it_took_bytes_from(
    bridge: Bridge, echo: Echo
) -> None:
    with Talker(bridge) as spoke, Talker(bridge) as silent:
        assert spoke.ask(b"a") == b"a"
        assert silent.ask(b"b") == b"b"
        bridge.blackhole()
        spoke.say(b"lost")
        assert spoke.hears_nothing()
        bridge.unblackhole()
        assert spoke.is_cut_off()
        assert silent.ask(b"c") == b"c"
    assert bytes(echo.heard) == b"abc"


def test_lost_replies_are_of_requests_that_arrived(bridge: Bridge, echo: Echo) -> None:
    with Talker(bridge) as talker:
        assert talker.ask(b"a") == b"a"
        bridge.lose_replies()
        talker.say(b"b")
        wait_until(lambda: bytes(echo.heard) == b"ab", "the request arrives")
        assert talker.hears_nothing()
        bridge.unblackhole()
        assert talker.is_cut_off()


def test_held_replies_come_late(bridge: Bridge, echo: Echo) -> None:
    with Talker(bridge) as talker:
        assert talker.ask(b"a") == b"a"
        bridge.hold_replies()
        talker.say(b"b")
        wait_until(lambda: bytes(echo.heard) == b"ab", "the request arrives")
        assert talker.hears_nothing()
        bridge.resume(Way.REPLIES)
        assert talker.hear(1) == b"b"


def test_refuse_closes_the_port_and_leaves_connections_alone(bridge: Bridge) -> None:
    with Talker(bridge) as old:
        assert old.ask(b"a") == b"a"
        bridge.refuse()
        with pytest.raises(ConnectionRefusedError):
            Talker(bridge)
        assert old.ask(b"b") == b"b"
        bridge.accept()
        with Talker(bridge) as new:
            assert new.ask(b"c") == b"c"


def test_delay_counts_in_each_direction(bridge: Bridge) -> None:
    with Talker(bridge) as talker:
        assert talker.ask(b"a") == b"a"
        bridge.delay(0.05)
        asked_at = time.monotonic()
        assert talker.ask(b"b") == b"b"
        assert time.monotonic() - asked_at >= 0.1
        bridge.delay(0.0)
        assert talker.ask(b"c") == b"c"


def test_a_dead_server_behind_the_bridge_ends_the_connection() -> None:
    with Bridge(LOOPBACK, free_port()) as bridge, Talker(bridge) as talker:
        assert talker.is_cut_off()


def test_a_closed_bridge_closes_its_port_and_its_connections(echo: Echo) -> None:
    bridge = Bridge(LOOPBACK, echo.port)
    with Talker(bridge) as talker:
        assert talker.ask(b"a") == b"a"
        bridge.close()
        bridge.close()
        assert talker.is_cut_off()
    with pytest.raises(ConnectionRefusedError):
        Talker(bridge)
