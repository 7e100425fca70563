# syntax=docker/dockerfile:1
#
#   docker build -t pansynth --build-arg TORCH_INDEX=URL .   # CPU: URL is the package index of PyTorch's CPU builds
#   docker build -t pansynth:cuda --build-arg DEVICE=cuda .  # NVIDIA GPU; the host brings the driver, see docs/operations.md
#   docker run --rm -v pansynth:/data pansynth keys create NAME   # once: the key, which clients and the page ask for
#   docker run --init -p 127.0.0.1:8000:8000 -v pansynth:/data pansynth
#
ARG PYTHON_VERSION=3.11
FROM python:${PYTHON_VERSION}-slim

# Which torch: `cuda` for the one with CUDA's libraries inside, which is what PyPI serves on Linux (TORCH_INDEX for one with
# an older CUDA); `cpu` for that of TORCH_INDEX, gigabytes smaller. Without TORCH_INDEX a CPU image works, too, only larger.
ARG DEVICE=cpu
ARG TORCH_INDEX=

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PANSYNTH_DATA_DIR=/data \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

RUN useradd --system --uid 10001 --create-home pansynth \
    && install --directory --owner=pansynth --group=pansynth --mode=700 /data

# Three layers, the largest and most lasting first: torch, the other dependencies, our own code.
WORKDIR /src
COPY constraints.txt ./
RUN case "$DEVICE" in \
        cpu|cuda) pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt torch ;; \
        *) echo "DEVICE is '$DEVICE'; it must be cpu or cuda" >&2; exit 1 ;; \
    esac
COPY pyproject.toml ./
RUN touch README.md LICENSE && mkdir app worker models cli && pip install -c constraints.txt .
COPY README.md LICENSE ./
COPY app app
COPY worker worker
COPY models models
COPY cli cli
RUN pip install --no-deps --force-reinstall .

USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=3)"]

# The whole service in one container; docker-compose.yml runs its parts in several. Keys travel in clear: publish the
# port on loopback, and put a proxy with TLS in front of anything else.
ENTRYPOINT ["pansynth"]
CMD ["up", "--host", "0.0.0.0"]
