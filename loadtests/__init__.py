"""A minute of mixed traffic against a real server: `make loadtest`."""
