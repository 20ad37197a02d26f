"""`wrk`: the load, by the program of that name, which takes one core less than a server in Python can fill."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.payload import FIRST, TEXT, body

__all__ = ["CONNECTIONS", "Found", "check", "find_wrk", "load"]

CONNECTIONS = 64
PATH = f"/items/{FIRST}"
_POST = f"""
wrk.method = "POST"
wrk.path = "/items"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[{body(FIRST).decode()}]]
"""
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


class Found:
    """What one run came to."""

    def __init__(self, count: int, rate: float, p99_us: float) -> None:
        self.count = count
        """Requests answered."""
        self.rate = rate
        """Requests per second."""
        self.p99_us = p99_us


def find_wrk() -> str:
    """Return the program. Raises FileNotFoundError."""
    found = shutil.which("wrk")
    if found is None:
        raise FileNotFoundError("there is no program 'wrk'; install it, on Debian by 'apt install wrk'")
    return found


def check(port: int, method: str) -> None:
    """Ask once and look at the answer.

    Raises:
        ValueError: it is wrong.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    path, sent = (PATH, None) if method == "GET" else ("/items", body(FIRST))
    connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    if response.status != 200 or json.loads(raw) != {"number": FIRST + 1, "text": TEXT}:
        raise ValueError(f"{method} was answered {response.status} {raw[:200]!r}")


def load(port: int, method: str, seconds: float, core: int | None) -> Found:
    """Send requests over 64 connections, each as soon as the one before is answered.

    Raises:
        ValueError: some were not answered, or not with 200.
    """
    with tempfile.TemporaryDirectory(prefix="cliffracer-wrk-") as folder:
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        command = [*pinned, find_wrk(), "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency"]
        if method == "POST":
            script = Path(folder, "post.lua")
            script.write_text(_POST)
            command += ["-s", str(script)]
        command.append(f"http://127.0.0.1:{port}{PATH}")
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    return _read(text)


def _read(text: str) -> Found:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    count = re.search(r"(\d+) requests in", text)
    if "Socket errors" in text or "Non-2xx" in text or rate is None or p99 is None or count is None:
        raise ValueError(f"wrk: {text.strip()[-400:]}")
    return Found(int(count[1]), float(rate[1]), float(p99[1]) * _UNITS[p99[2]])
