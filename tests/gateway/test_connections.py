"""How many connections one address may hold, over raw sockets."""

from __future__ import annotations

import os
import resource
import socket
import time
from contextlib import ExitStack
from ipaddress import ip_network

import pytest

from gateway.connections import FEWEST, OTHER_FILES, Connections, room
from services.chassis.config import ConfigError, load_config
from tests.gateway.conftest import a_world
from tests.gateway.test_limits import complete

HOST = "127.0.0.1"
OTHER = "127.0.0.2"
ASK = b"GET /healthz HTTP/1.1\r\nHost: kehu\r\n\r\n"


def connect(port, address=HOST):
    return socket.create_connection((HOST, port), timeout=10, source_address=(address, 0))


def answers(connection):
    """Tell whether the server still answers on a connection."""
    try:
        connection.sendall(ASK)
        received = b""
        while not complete(received):
            received += (more := connection.recv(4096))
            if not more:
                return False
        return received.startswith(b"HTTP/1.1 200")
    except (BrokenPipeError, ConnectionResetError):
        return False


def settled(connections, held):
    """Look until the server has accepted what was opened; return how many were shut meanwhile."""
    shut, end = 0, time.monotonic() + 10
    while time.monotonic() < end:
        shut += connections.look()
        if shut >= held:
            break
        time.sleep(0.05)
    return shut


def quiet(world):
    """End what the fixtures opened, and wait until the server saw that."""
    world.http.close()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        connections = Connections(world.port, 1_000_000)
        connections.look()
        if not any(held.holder for held in connections._held.values()):
            return
        time.sleep(0.05)
    raise AssertionError("the server holds connections that nobody opened")


@pytest.fixture
def opened():
    with ExitStack() as stack:
        yield stack.enter_context


def test_the_newest_of_an_address_with_too_many_are_shut_and_nobody_elses(world, opened):
    quiet(world)
    connections = Connections(world.port, 5)
    neighbour = opened(connect(world.port, OTHER))
    old = [opened(connect(world.port)) for _ in range(5)]
    assert all(map(answers, old)) and settled(connections, 0) == 0
    new = [opened(connect(world.port)) for _ in range(20)]

    assert settled(connections, 20) == 20
    assert not any(map(answers, new))
    assert all(map(answers, old)) and answers(neighbour)
    assert settled(connections, 0) == 0


def test_whoever_ends_connections_may_open_others(world, opened):
    quiet(world)
    connections = Connections(world.port, 5)
    for _ in range(4):
        some = [connect(world.port) for _ in range(5)]
        assert all(map(answers, some))
        assert connections.look() == 0
        for one in some:
            one.close()
        time.sleep(0.3)  # until the server saw them end


def test_a_trusted_proxys_connections_are_of_many(world, opened):
    quiet(world)
    connections = Connections(world.port, 2, [ip_network("127.0.0.0/8")])
    many = [opened(connect(world.port)) for _ in range(20)]

    assert all(map(answers, many))
    assert connections.look() == 0


def test_nothing_but_connections_of_the_server_is_touched(world, opened):
    quiet(world)
    listener = opened(socket.create_server((HOST, 0)))
    mine = [opened(connect(listener.getsockname()[1])) for _ in range(8)]
    theirs = [opened(listener.accept()[0]) for _ in mine]
    pipe = os.pipe()

    assert Connections(world.port, 1).look() == 0
    for one, other in zip(mine, theirs, strict=True):
        other.sendall(b"x")
        assert one.recv(1) == b"x"
    for end in pipe:
        os.close(end)


def test_slow_heads_of_one_address_leave_room_for_everybody_else(world, opened):
    quiet(world)
    connections = Connections(world.port, 50)
    slow = [opened(connect(world.port)) for _ in range(200)]
    for one in slow:
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: ke")

    assert settled(connections, 150) == 150
    assert answers(opened(connect(world.port, OTHER)))


def test_connections_fit_into_the_files_a_process_may_open(monkeypatch):
    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: asked.append(limits))
    limits = ((1024, 4096, 4096 - OTHER_FILES), (1024, 524288, 4096), (-1, -1, 4096), (64, 64, FEWEST))
    for soft, hard, expected in limits:
        monkeypatch.setattr(resource, "getrlimit", lambda what, soft=soft, hard=hard: (soft, hard))
        assert room(4096) == expected
    assert asked[:2] == [(4096, 4096), (4096 + OTHER_FILES, 524288)]


def test_a_bound_of_none_is_refused():
    with pytest.raises(ConfigError, match="KEHU_CONNECTIONS_EACH"):
        load_config({"KEHU_CONNECTIONS_EACH": "0"}, with_stores=False)


def test_beyond_the_bound_of_all_one_waits_for_another_to_end(monkeypatch, opened, kitchen_file, messages):
    monkeypatch.setattr("gateway.main.room", lambda: 6)
    with a_world(kitchen_file, messages) as world:
        quiet(world)
        held = [opened(connect(world.port)) for _ in range(6)]
        assert all(map(answers, held))
        waiting = opened(connect(world.port, OTHER))
        waiting.settimeout(0.5)
        with pytest.raises(TimeoutError):
            answers(waiting)
        held[0].close()
        waiting.settimeout(5)

        assert answers(waiting)
