# One image for TorchServe and for the gateway; docs/operations.md says how to run it.
#
#   docker build -t clipcap .                        what serves (target serve)
#   docker build --target train -t clipcap-train .   the pipeline: `make train`
#
# BASE is a Debian with apt, python3 (3.11, 3.12 or 3.13) and its venv module.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# --- The Python packages that run in the image -------------------------------------------------
FROM ${BASE} AS packages
# The index that torch alone comes from. Empty: from where pip finds the other packages. Captions are
# computed on the CPU; another build of torch, such as .../whl/cu130, is of use for the target train.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /app
# pip in an environment of its own, so that /opt/venv, which is copied, has none.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml constraints.txt README.md LICENSE ./
# pip asks for the folders of the code. They are empty here, so that a change of the code does not
# install all packages again.
RUN mkdir client deploy feedback gateway handler model training \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps \
        -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0 \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
        -c constraints.txt -e '.[runtime,postgresql]'

# The same without what is there to compile and test torch, 190 MB, and without the project, whose
# code the last stage copies. `import torch` looks for bin/torch_shm_manager.
FROM packages AS runtime
RUN /opt/pip/bin/pip --python /opt/venv/bin/python uninstall --yes clipcap \
    && rm -r /opt/venv/lib/python3*/site-packages/torch/include \
        /opt/venv/lib/python3*/site-packages/torch/test \
    && find /opt/venv/lib/python3*/site-packages/torch/bin -type f ! -name torch_shm_manager -delete \
    && python -c 'import torch'

# --- The captioner: exported from a checkpoint, and packed as an archive ------------------------
FROM packages AS captioner
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
        -c constraints.txt -e '.[serve]'
COPY . .
# A checkpoint folder or a .mar file of the build context.
ARG MODEL=training/pretrained/scenes-captioner
# fp32 runs on every processor. The others only on those that have the instructions, and `auto` goes
# by the processor that builds.
ARG PRECISION=fp32
# Threads of torch that wait for each other sleep soon: on a busy machine they would hinder themselves.
ENV GOMP_SPINCOUNT=5000
RUN case "$MODEL" in \
        *.mar) cp "$MODEL" /opt/clipcap.mar ;; \
        *) python -m training.export --checkpoint "$MODEL" --out /tmp/artifact \
                export.precision="$PRECISION" \
            && python -m training.archive --artifact /tmp/artifact --out /opt/clipcap.mar \
            && rm -r /tmp/artifact ;; \
    esac \
    && chmod 0644 /opt/clipcap.mar \
    && python -m deploy.container.archive /opt/clipcap.mar

# --- The pipeline -------------------------------------------------------------------------------
FROM captioner AS train
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
        -c constraints.txt -e '.[train]' \
    && dvc config --local core.no_scm true \
    && ln -s /opt/venv .venv \
    && touch .venv/.installed-serve .venv/.installed-train \
    && useradd --uid 10001 --no-create-home --home-dir /tmp clipcap \
    && chown -R clipcap /app
ENV HOME=/tmp
USER 10001
CMD ["make", "train"]

# --- What serves: the last stage, so that it is built where no target is named ------------------
FROM ${BASE} AS serve
# tini gives signals to the program and ends what the program leaves behind.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /tmp clipcap \
    && mkdir /models /feedback \
    && chown clipcap /feedback
COPY --from=runtime /opt/venv /opt/venv
WORKDIR /app
COPY --from=captioner /opt/clipcap.mar model_store/clipcap.mar
COPY config.properties ./
COPY handler/metrics.yaml handler/
COPY client client
COPY feedback feedback
COPY gateway gateway
COPY deploy deploy
RUN /opt/venv/bin/python -m compileall -q client deploy feedback gateway
# A captioner needs no NumPy, but torch warns where there is none.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONWARNINGS="ignore:Failed to initialize NumPy"
# By number: Kubernetes can tell from it that the user is not root.
USER 10001
EXPOSE 8000
# Ready to caption, for the server that this container runs. Docker and Podman use it.
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-m", "deploy.container.health"]
# 143 is the status of a program that SIGTERM ended, as it should.
ENTRYPOINT ["tini", "-e", "143", "--", "python", "-m", "deploy.container.start"]
CMD ["torchserve"]
