"""Exchanges recorded without secrets, and replayed without a network."""

import asyncio
import json

import pytest

from builders import make_catalog
from headwater.cassette import Recorder, Replay, load, replay_through
from headwater.catalog import Permissions
from headwater.client import HttpClients
from headwater.errors import ConfigError, NotFoundError
from headwater.redaction import Redactor
from headwater.testing.clock import FakeClock
from headwater.transport import TransportRequest
from http_fakes import API, SECRET, Script, answer, make_client

OTHER = "sk_test_other_account"


def clients(path, script=None, *, replay=False):
    """The clients of an account that records into `path`, or of another that is answered from it."""
    recorder = None if replay else Recorder(path)
    made = HttpClients(FakeClock(), script or Script(), through=replay_through(path) if replay else recorder.through)
    client = made.client(
        connection_id=1,
        connector=make_catalog(permissions=Permissions(http=[f"{API}/*"])),
        settings={},
        redactor=Redactor([OTHER if replay else SECRET]),
    )
    return client, recorder


def recorded(path, *steps, asks):
    client, recorder = clients(path, Script(*steps))

    async def main():
        return [await client.request(*words, **options) for words, options in asks(SECRET)]

    responses = asyncio.run(main())
    recorder.save()
    return responses


def replayed(path, *, asks):
    client, _ = clients(path, Script(AssertionError("no network")), replay=True)

    async def main():
        return [await client.request(*words, **options) for words, options in asks(OTHER)]

    return asyncio.run(main())


def asks(secret):
    headers = {"Authorization": f"Bearer {secret}"}
    yield ("GET", f"{API}/v1/customers"), {"params": {"limit": 2}, "headers": headers}
    yield ("GET", f"{API}/v1/customers"), {"params": {"limit": 2, "key": secret}, "headers": headers}
    yield ("POST", f"{API}/v1/charges"), {"data": {"amount": 5, "note": f"paid by {secret}"}, "headers": headers}
    yield ("GET", f"{API}/v1/{secret}/file"), {"ok": [404]}


STEPS = (
    answer(body={"data": [1, 2]}, X_Page="1", Content_Encoding="gzip", Content_Length="99"),
    answer(body={"data": [3], "echo": SECRET}),
    answer(201, {"access_token": 'fresh \\" token', "refresh_token": "fresher", "id": "ch_1"}, Set_Cookie="s=1"),
    answer(404, b"\x00\xff binary"),
)


def test_what_was_recorded_with_one_account_is_replayed_with_another(tmp_path):
    path = tmp_path / "folder" / "customers.json"
    live = recorded(path, *STEPS, asks=asks)
    again = replayed(path, asks=asks)
    assert [one.status for one in again] == [one.status for one in live] == [200, 200, 201, 404]
    assert again[0].json() == {"data": [1, 2]}
    assert again[0].headers["x-page"] == "1"
    assert again[1].json() == {"data": [3], "echo": "***"}
    assert again[3].body == b"\x00\xff binary"


def test_a_cassette_holds_no_secret(tmp_path):
    path = tmp_path / "customers.json"
    recorded(path, *STEPS, asks=asks)
    text = path.read_text()
    assert SECRET not in text
    assert not {"fresh", "fresher", "s=1"} & set(text.replace('"', " ").split())
    assert json.loads(text)["cassette"] == 1
    assert not list(tmp_path.glob("*.part"))


def test_the_same_request_gets_the_next_answer_and_then_the_last_again(tmp_path):
    path = tmp_path / "c.json"

    def twice(secret):
        return [(("GET", f"{API}/v1"), {})] * 2

    recorded(path, answer(body=b"[1]"), answer(body=b"[2]"), asks=twice)
    assert [one.json() for one in replayed(path, asks=lambda _: twice(_) * 2)] == [[1], [2], [2], [2]]


def test_a_write_is_not_answered_more_often_than_it_was_recorded(tmp_path):
    path = tmp_path / "c.json"
    recorded(path, answer(), asks=lambda _: [(("POST", f"{API}/v1"), {})])
    with pytest.raises(NotFoundError, match="no further answer to POST"):
        replayed(path, asks=lambda _: [(("POST", f"{API}/v1"), {})] * 2)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (("GET", f"{API}/v1/customer?limit=2"), f"The closest one is GET {API}/v1/customers?limit=2."),
        (("POST", f"{API}/v1/charges"), f"The closest one is POST {API}/v1/charges with another body."),
        (("DELETE", "https://nothing.like/it"), "Record it again."),
    ],
)
def test_a_miss_names_the_closest_request(tmp_path, ask, says):
    path = tmp_path / "c.json"
    recorded(path, *STEPS, asks=asks)
    replay = Replay(load(path), name="c.json")
    with pytest.raises(NotFoundError) as caught:
        asyncio.run(replay(TransportRequest(method=ask[0], url=ask[1])))
    assert str(caught.value).startswith(f"c.json holds no answer to {ask[0]} ")
    assert says in str(caught.value)


def test_redirects_and_retries_are_recorded_one_by_one(tmp_path):
    recorder = Recorder(tmp_path / "c.json")
    script = Script(answer(302, Location="/v2"), answer(body=b"[2]"))
    client = make_client(recorder.through(script, Redactor(())))
    asyncio.run(client.request("GET", f"{API}/v1"))
    assert [one.response.status for one in recorder.exchanges] == [302, 200]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"{", "is no cassette"), (b"[]", "is no cassette"), (b"\xff", "is no cassette"),
     (b'{"cassette": 1}', "is no cassette"),
     (b'{"cassette": 2, "exchanges": []}', "version 2"), (None, "cannot be read")],
)  # fmt: skip
def test_a_file_that_is_no_cassette_is_refused(tmp_path, content, says):
    path = tmp_path / "c.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load(path)
