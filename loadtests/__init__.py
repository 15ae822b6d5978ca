"""Looks at a running captioner from outside, with checks on every reply.

- `python -m loadtests` (`make loadtest`): a minute of mixed requests against TorchServe.
- `python -m loadtests.chaos` (`make chaos`): faults on purpose, behind and in front of the gateway.

`comparison` tells whether a reply under load is that of its picture.
"""
