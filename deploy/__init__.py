"""TorchServe and the gateway on this machine.

serve.py            the commands `make serve`, `make stop`, `make status`
swap.py             the command `make swap`: another captioner without a lost request
report.py           what the commands print about the servers that run
slots.py            the two places for a TorchServe, and which of them serves
captioner.py        which captioner is served, and the archive made from it
golden.py           pictures that a new TorchServe must caption as its artifact does
modules.py          runs modules of the project that need torch
torchserve.py       the server's process: started, waited for, stopped
gateway.py          the gateway's process: started, waited for, moved, stopped
gateway_backend.py  where the gateway finds TorchServe: the file it reads, the log it writes
processes.py        a process written to a file, found again, ended
logs.py             their logs, and those of the servers before
properties.py       `config.properties`, read and derived
ports.py            TCP ports: free, taken, by which program
errors.py           the error of all of these
"""
