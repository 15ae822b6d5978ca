"""Load test: a minute of mixed requests against a real server (`make loadtest`)."""
