"""`headwater demo`: the whole platform in one process, and what it prints."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from served import HEADWATER, LIMIT_SECONDS, environment, headwater

from headwater.demo import connector_path
from headwater.project import load


def test_once_in_json_prints_json_alone_and_every_stream_has_succeeded(tmp_path: Path) -> None:
    answer = headwater(tmp_path, "demo", "--once", "--json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    declared = {stream.key for stream in load(connector_path()).connector.streams}
    assert {stream["stream"] for stream in summary["streams"]} == declared
    assert len(declared) == 12
    assert all(stream["succeeded"] for stream in summary["streams"])
    assert summary["records"] > 100
    assert summary["deliveries"] > 0
    assert "12 of 12 streams have succeeded" in answer.err
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_live_tells_its_urls_and_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*HEADWATER, "demo", "--port", "0"],
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "streams: 12 fresh" in line:
                break
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
        process.wait(LIMIT_SECONDS)
    assert process.returncode == 0, err
    for words in ("dashboard   http://127.0.0.1:", "provider    http://127.0.0.1:", "connection  acme"):
        assert words in said
    streams = headwater(tmp_path, "streams", "--database", ".headwater/demo.db", "--json").json
    assert len(streams) == 12
    assert "Traceback" not in said + rest + err
