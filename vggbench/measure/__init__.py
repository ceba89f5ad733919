"""What is measured: ranks of the true label (accuracy) and seconds a call (latency)."""
