"""TorchServe and the gateway: on this machine, in containers, on Kubernetes, on Google Cloud.

serve.py        the commands: `make serve`, `make stop`, `make status`
captioner.py    which captioner is served, and the archive made from it
torchserve.py   the server's process: started, waited for, stopped
gateway.py      the gateway's process: started, waited for, stopped
processes.py    a process written to a file, found again, ended
logs.py         their logs, and those of the servers before
properties.py   `config.properties`, read and derived
ports.py        TCP ports: free, taken, by which program
errors.py       the error of all of these

container/        what runs in the image of the Dockerfile
container_check/  builds that image and checks it
compose.yaml      both servers in containers, with Prometheus and Grafana if wanted
models/           archives that the containers serve in place of the image's own
kubernetes/       the same on Kubernetes, and as an InferenceService of KServe
cloud/            the same on Google Cloud, with training, builds and alerts
"""
