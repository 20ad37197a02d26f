"""cliffracer-nats."""
