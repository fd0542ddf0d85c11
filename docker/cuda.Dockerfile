# vgr-rl on NVIDIA GPUs, as the README installs it with `bash scripts/install.sh gpu`:
#   docker build --file docker/cuda.Dockerfile --tag vgr-rl:cuda .
# The driver comes from the host (nvidia-container-toolkit), CUDA's libraries with torch, and nvcc, which compiles
# flash-attn, stays in the first stage.
FROM debian:bookworm-slim AS base

# A C compiler and Python's headers: Triton compiles kernels' launchers where they run.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 vgr \
    && install --directory --owner vgr /opt/vgr-rl /opt/vgr-rl/runs

WORKDIR /opt/vgr-rl

FROM base AS environment

# The CUDA of the lock's torch.
ADD https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb /tmp/
# hadolint ignore=DL3008
RUN dpkg --install /tmp/cuda-keyring_1.1-1_all.deb \
    && apt-get update \
    && apt-get install --yes --no-install-recommends g++ git ninja-build \
        cuda-nvcc-13-0 cuda-cudart-dev-13-0 cuda-libraries-dev-13-0 \
    && rm -rf /var/lib/apt/lists/* /tmp/cuda-keyring_1.1-1_all.deb

USER 1000
COPY --chown=1000 pyproject.toml README.md LICENSE ./
COPY --chown=1000 requirements/gpu.lock requirements/
COPY --chown=1000 scripts/install.sh scripts/common.sh scripts/
COPY --chown=1000 rewards/__init__.py rewards/
COPY --chown=1000 vgr_rl/__init__.py vgr_rl/
COPY --chown=1000 vgr_rl/cpu vgr_rl/cpu/
RUN CUDA_HOME=/usr/local/cuda-13.0 MAX_JOBS=4 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 bash scripts/install.sh gpu

FROM base

USER 1000
COPY --from=environment --chown=1000 /opt/vgr-rl/.venv .venv/
COPY --chown=1000 . .

ENV PATH=/opt/vgr-rl/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["python", "-m", "vgr_rl.main", "--help"]
