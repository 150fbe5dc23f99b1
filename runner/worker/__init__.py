"""The worker process: runs one stage's code item by item, and sends events to the supervisor."""
