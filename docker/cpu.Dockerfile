# vgr-rl on CPUs, as the README installs it:
#   docker build --file docker/cpu.Dockerfile --tag vgr-rl:cpu .
FROM debian:bookworm-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libnuma1 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 vgr \
    && install --directory --owner vgr /opt/vgr-rl /opt/vgr-rl/runs

WORKDIR /opt/vgr-rl
USER 1000

# What the environment is made from, and nothing else: a change of the code keeps this layer.
COPY --chown=1000 pyproject.toml README.md LICENSE ./
COPY --chown=1000 requirements/cpu.lock requirements/
COPY --chown=1000 scripts/install.sh scripts/common.sh scripts/
COPY --chown=1000 rewards/__init__.py rewards/
COPY --chown=1000 vgr_rl/__init__.py vgr_rl/
COPY --chown=1000 vgr_rl/cpu vgr_rl/cpu/
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 bash scripts/install.sh cpu

COPY --chown=1000 . .

ENV PATH=/opt/vgr-rl/.venv/bin:/usr/local/bin:/usr/bin:/bin
CMD ["python", "-m", "vgr_rl.main", "--help"]
