"""TorchServe and the gateway: on this machine, in containers, on Kubernetes, on Google Cloud.

serve.py            the commands `make serve`, `make stop`, `make status`
swap.py             the command `make swap`: another captioner without a lost request
report.py           what the commands print about the servers that run
slots.py            the two places for a TorchServe, and which of them serves
captioner.py        which captioner is served, and the archive made from it
golden.py           pictures that a new TorchServe must caption as its artifact does
modules.py          runs modules of the project that need torch
torchserve.py       the server's process: started, waited for, stopped
gateway.py          the gateway's process: started, waited for, moved, stopped
canary.py           `make canary`, `make promote`, `make rollback`: another captioner tried out
gateway_backend.py  where the gateway finds TorchServe: the file it reads, the log it writes
health.py           whether a gateway answers, and whether it is the one that was started
processes.py        a process written to a file, found again, ended
logs.py             their logs, and those of the servers before
properties.py       `config.properties`, read and derived
ports.py            TCP ports: free, taken, by which program
errors.py           the error of all of these

container/        what runs in the image of the Dockerfile
container_check/  builds that image and checks it
compose.yaml      both servers in containers, with Prometheus and Grafana if wanted
models/           archives that the containers serve in place of the image's own
kubernetes/       the same on Kubernetes, and as an InferenceService of KServe
cloud/            the same on Google Cloud, with training, builds and alerts
"""
