"""Services as their users write them, each a process of its own: `python -m faults.workers.shop`."""
