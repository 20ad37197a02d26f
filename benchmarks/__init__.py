"""Cliffracer beside raw nats-py and FastStream in one run; `python -m benchmarks --help`, README.md."""
