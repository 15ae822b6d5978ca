"""Faults on purpose: what becomes of requests when a process, a disk or a client fails.

`python -m loadtests.chaos` (`make chaos`) starts a TorchServe and a gateway for each case, on free
ports and in a folder of their own. Clients send pictures all the time, and every reply must be the
caption of its picture. Then something is broken, and the case checks what it expects.

The files, in reading order:

    __main__            the command: which cases, in which order
    case                what a case is: its fault, what is expected, how it ends
    serving             TorchServe and gateway of a case
    clients             the clients, what each of their requests came to, and the pictures
    stage               what a case works with: it starts the above and measures
    worker_faults       the worker is killed, stopped or ended by a picture or a stream
    server_faults       TorchServe is killed, the gateway is stopped, the clock jumps
    machine_faults      the disk is full, files cannot be opened
    connection_faults   clients that send nothing, or slowly, or leave; too many of them
    archive_faults      archives that must be refused
    faulty_archive      an archive whose worker some options end
    report              table, Markdown, JSON and plot
"""
