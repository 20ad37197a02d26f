"""Uploads of up to 1 GB: kept on disk where a route takes them, refused where it does not, memory flat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from .forms import Form
from .memory import MIB, needs_proc, private_bytes
from .processes import Worker

GROWTH = 24 * MIB
"""Private bytes that a process may grow by while it takes an upload, whatever the upload's size."""
HEAD = b'--cut\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
TAIL = b"\r\n--cut--\r\n"
TYPE = "multipart/form-data; boundary=cut"
OTHERS_EVERY = 8


class Upload:
    """A body of one file; it watches the server's memory, and asks for something else, while it is sent."""

    def __init__(self, worker: Worker, other: httpx.AsyncClient, mebibytes: int) -> None:
        self._worker, self._other, self._mebibytes = worker, other, mebibytes
        self.sent = 0
        self.peak = 0
        self.length = mebibytes * MIB + len(HEAD) + len(TAIL)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield HEAD
        for number in range(self._mebibytes):
            yield bytes(MIB)
            self.sent += MIB
            self.peak = max(self.peak, private_bytes(self._worker.pid))
            if number % OTHERS_EVERY == 0:
                assert (await self._other.get("/users/7")).json() == "7"
        yield TAIL


@needs_proc
@pytest.mark.parametrize("server", ["hypercorn", "uvicorn", "granian"])
async def test_memory_stays_flat_when_an_upload_is_large(
    server: str, unused_tcp_port: int, tmp_path: Path, form: Form, report: Callable[[str], None]
) -> None:
    """By length and in chunks, taken and refused: others are served meanwhile, and the process hardly grows."""
    environment = {
        "CLIFFRACER_TRANSPORT": "memory://", "CLIFFRACER_HTTP__SERVER": server,
        "CLIFFRACER_HTTP__PORT": str(unused_tcp_port), "TMPDIR": str(tmp_path),
    }  # fmt: skip
    worker = await Worker.start("target", tmp_path / "target.err", environment)
    url = f"http://127.0.0.1:{unused_tcp_port}"
    try:
        await worker.until(ready=True)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client, httpx.AsyncClient(base_url=url) as other:
            small = Upload(worker, other, 8)
            assert (await client.post("/files", content=small, headers={"content-type": TYPE})).json() == 8 * MIB
            before, peak = private_bytes(worker.pid), 0
            for headers in ({}, {"content-length": ""}):
                upload = Upload(worker, other, form.upload_mib)
                given = {"content-type": TYPE} | {name: str(upload.length) for name in headers}
                taken = await client.post("/files", content=upload, headers=given)
                assert (taken.status_code, taken.text) == (200, str(form.upload_mib * MIB))
                peak = max(peak, upload.peak)
                refused = Upload(worker, other, form.upload_mib)
                try:
                    answer = await client.post(
                        "/names", content=refused, headers={**given, "content-type": "application/json"}
                    )
                    assert answer.status_code == 413
                except httpx.TransportError:
                    pass  # cut off while it was still sending
                assert refused.sent < form.upload_mib * MIB // 2
                peak = max(peak, refused.peak)
            assert (await other.get("/users/7")).json() == "7"
        assert peak - before < GROWTH, f"{(peak - before) / MIB:.1f} MiB"
        assert worker.errors == ""
    finally:
        await worker.close()
    report(f"{server}: uploads of {form.upload_mib} MiB cost {(peak - before) / MIB:.1f} MiB at most")
