"""The flight recorder: what the balancer was given and what it decided, kept on disk and run again."""
