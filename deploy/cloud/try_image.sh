#!/usr/bin/env bash
# Starts TorchServe and the gateway from an image, as in production, and waits until a picture was
# captioned. Exit status 1 and the logs of both if none was within three minutes.
#
#   bash deploy/cloud/try_image.sh IMAGE        with CONTAINERS=podman for Podman
set -euo pipefail

image=${1:?give the image: try_image.sh IMAGE}
containers=${CONTAINERS:-docker}
name=clipcap-try-$$
limits=(--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges)

end() {
    # One after the other: the gateway's container holds on to the network of TorchServe's.
    "$containers" rm --force "$name-gateway" > /dev/null 2>&1 || true
    "$containers" rm --force "$name-torchserve" > /dev/null 2>&1 || true
}
trap end EXIT

# A network of its own with nothing but loopback: the servers need no other.
"$containers" run --detach --name "$name-torchserve" --network none "${limits[@]}" \
    "$image" torchserve > /dev/null
# In the same network, as in one pod.
"$containers" run --detach --name "$name-gateway" --network "container:$name-torchserve" \
    "${limits[@]}" "$image" gateway > /dev/null

for _ in $(seq 90); do
    if "$containers" exec "$name-gateway" python -m deploy.container.health gateway; then
        echo "$image captions"
        exit 0
    fi
    sleep 2
done
"$containers" logs "$name-torchserve" >&2
"$containers" logs "$name-gateway" >&2
echo "error: $image captioned nothing within three minutes; the logs are above" >&2
exit 1
