"""What runs in the image of the Dockerfile.

start.py      the command of a container: `torchserve` or `gateway`
archive.py    which archive TorchServe serves, and whether it is one
health.py     the check of a container: exit status 0 while its server is ready
log4j2.xml    TorchServe's logs, on standard output
"""
