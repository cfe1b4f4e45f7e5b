"""The HTTP server around the application: it ends when it is told to, and answers carry a date."""

import asyncio
from contextlib import closing
from types import SimpleNamespace

from headwater import server


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_it_answers_with_a_date_and_ends_when_it_is_told():
    async def main():
        with closing(server.bind("127.0.0.1", 0)) as listener:
            running = server._uvicorn(SimpleNamespace(asgi=app))
            assert not running.should_exit
            serving = asyncio.create_task(running.serve(sockets=[listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
            head = await reader.read()
            writer.close()
            assert head.startswith(b"HTTP/1.1 204")
            assert b"\r\ndate: " in head
            running.should_exit = True
            assert running.should_exit
            await asyncio.wait_for(serving, 30)

    asyncio.run(main())


def test_the_date_of_answers_is_kept_right(monkeypatch):
    monkeypatch.setattr(server, "DATE_SECONDS", 0.0)

    async def main():
        running = server._uvicorn(SimpleNamespace(asgi=app))
        looks = []

        async def look(counter):
            looks.append(counter)
            return len(looks) == 3

        running.on_tick = look
        await running.main_loop()
        assert looks == [0, 0, 0], "each look is one at which uvicorn renews the date"

    asyncio.run(main())
