# The project with its environment in /project, for one machine or for all machines of a cluster (docs/clusters.md).
#   docker build --tag mlb:cpu --build-arg TORCH=cpu .      PyTorch's CPU build, about 2 GB
#   docker build --tag mlb:cuda .                           with CUDA; start it with --gpus=all
#   docker run --rm -it -v "$PWD/results:/project/results" -v "$PWD/data:/project/data" mlb:cpu make bo LOSS=proxy_anchor
FROM python:3.12-slim
ARG TORCH=default
# make: the commands; git: the commit in each record; wget: how KubeRay asks whether a pod is alive.
RUN apt-get update && apt-get install --yes --no-install-recommends git make wget && rm -rf /var/lib/apt/lists/*
WORKDIR /project
# The environment first: it is built anew only if the lock files change. PyTorch's wheels bring CUDA, so that the same
# base serves both; faiss is the CPU's, since a build sees no NVIDIA driver.
COPY Makefile requirements.lock requirements-cpu.lock requirements-uv.lock ./
RUN make setup TORCH=${TORCH} PYTHON=python3.12
# TORCH: so that make finds the environment ready. The others: what NVIDIA's runtime gives to the container.
ENV TORCH=${TORCH} \
    BENCHMARK_CACHE=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN ln -s /project/.venv/bin/ray /usr/local/bin/ray
COPY . .
# Files that are copied later than the environment was built do not make it out of date.
RUN touch .venv/.ready-${TORCH} && git config --system --add safe.directory /project
VOLUME /cache
CMD ["make", "help"]
