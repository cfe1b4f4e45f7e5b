"""What is written in one turn of the loop leaves in one piece where it is two, and nothing is held back for longer."""

import asyncio

import uvicorn
from uvicorn.server import ServerState

from headwater.corked import Cork, CorkedProtocol, CorkedTransport
from headwater.testing.clock import settle


class Recorded:
    """A transport that notes what it is asked."""

    def __init__(self):
        self.asked = []

    def write(self, data):
        self.asked.append(bytes(data))

    def close(self):
        self.asked.append("close")

    def get_extra_info(self, name, default=None):
        return default

    def is_closing(self):
        return "close" in self.asked


def told(*acts):
    """What the transport was asked in the turn of the acts, and by the next one."""

    async def main():
        inner = Recorded()
        corked = CorkedTransport(inner, Cork(asyncio.get_running_loop()))
        for act in acts:
            act(corked)
        now = list(inner.asked)
        await asyncio.sleep(0)
        return now, inner.asked

    return asyncio.run(main())


def write(data):
    return lambda corked: corked.write(data)


def test_head_and_body_leave_as_one():
    assert told(write(b"head"), write(b"body")) == ([b"headbody"], [b"headbody"])


def test_a_head_alone_leaves_at_the_end_of_the_turn():
    assert told(write(b"head")) == ([], [b"head"])
    assert told(write(b"head"), write(b"")) == ([b"head"], [b"head"])


def test_no_more_than_one_piece_is_held_and_the_order_stays():
    pieces = [write(b"1"), write(bytearray(b"2")), write(memoryview(b"3")), write(b"4"), write(b"5")]
    assert told(*pieces) == ([b"12", b"34"], [b"12", b"34", b"5"])


def test_what_is_held_is_what_it_was_when_it_was_written():
    given = bytearray(b"head")

    def change(corked):
        given[:] = b"else"

    assert told(write(given), change, write(b"body"))[1] == [b"headbody"]


def test_what_is_held_leaves_before_the_end():
    assert told(write(b"head"), lambda corked: corked.close()) == ([b"head", "close"], [b"head", "close"])


def test_an_answer_of_the_server_leaves_as_one():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def main():
        config = uvicorn.Config(app, interface="asgi3", lifespan="off", log_config=None)
        config.load()
        inner = Recorded()
        protocol = CorkedProtocol(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(inner)
        protocol.data_received(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        await settle()
        (answer,) = inner.asked
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nok")
        protocol.connection_lost(None)

    asyncio.run(main())


def test_what_else_it_is_asked_the_transport_answers():
    async def main():
        inner = Recorded()
        corked = CorkedTransport(inner, Cork(asyncio.get_running_loop()))
        assert not corked.is_closing()
        corked.close()
        assert corked.is_closing()

    asyncio.run(main())
