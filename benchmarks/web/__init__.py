"""HTTP: Cliffracer beside a bare ASGI callable, FastAPI, Litestar and BlackSheep: `python -m benchmarks.web`."""
