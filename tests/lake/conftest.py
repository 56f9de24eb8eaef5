"""A server of S3, and buckets on it."""

from __future__ import annotations

import pytest

from nudge_rag.stores import leases


@pytest.fixture(scope="module")
def address():
    """A server, as host and port."""
    from moto import server

    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def bucket(address, monkeypatch):
    """A bucket, with the settings of the environment by which clients find its server."""
    from tests.support.buckets import KEY, SECRET, SETTLE, Bucket, numbers

    settings = {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "DEFAULT_REGION": "us-east-1"}
    for name, value in {**settings, "ENDPOINT_URL": f"http://{address}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(leases, "SECONDS_TO_SETTLE", SETTLE)
    return Bucket(address, f"bucket-{next(numbers)}")
