"""Peer: dlt's REST source appending into SQLite. Usage: with_dlt.py FOLDER [--port 9900]. Prints its seconds."""

from __future__ import annotations

import json
import os
import sys
import time

folder = sys.argv[1]
port = sys.argv[3] if "--port" in sys.argv else "9900"
os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR", "DLT_DATA_DIR": folder}

import dlt  # noqa: E402  its environment comes first
from dlt.sources.rest_api import rest_api_source  # noqa: E402

source = rest_api_source(
    {
        "client": {
            "base_url": f"http://127.0.0.1:{port}/v1/",
            "paginator": {
                "type": "cursor",
                "cursor_path": "data[-1].id",
                "cursor_param": "starting_after",
                "has_more_path": "has_more",
            },
        },
        "resources": [
            {
                "name": "customers",
                "primary_key": "id",
                "write_disposition": "append",
                "endpoint": {"path": "customers", "params": {"limit": 100}, "data_selector": "data"},
            }
        ],
    }
)
pipeline = dlt.pipeline(
    pipeline_name="bench",
    destination=dlt.destinations.sqlalchemy(f"sqlite:///{folder}/out.db"),
    dataset_name="main",
    pipelines_dir=f"{folder}/pipelines",
)
started = time.perf_counter()
pipeline.run(source)
print(json.dumps({"seconds": time.perf_counter() - started}))
