"""Google Cloud: what docs/cloud.md installs, as files with places for names.

cloudbuild.yaml             builds, tries and pushes the images
trigger.yaml                runs it for every version tag
cloud_run.yaml              the service: gateway and TorchServe in one instance
training_job.yaml           `make train` on Vertex AI
dashboard.yaml              the service's requests, latency, instances and memory
alert_errors.yaml           tells when requests fail
alert_latency.yaml          tells when captions come late
render.py                   fills the places in and prints JSON, which all commands and APIs take
try_image.sh                starts an image and waits until it captions
"""
