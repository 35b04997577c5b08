# Two images of the same code: docker build --target cpu . and --target gpu .
#
#   deps-cpu ─ libraries ─┐                 deps-gpu ─ libraries ─┐
#   code ──── packages ───┴→ cpu            code ──── packages ───┴→ gpu
#
# Libraries and code are layers of their own, so a change of the code moves megabytes. Both are installed from outside into
# a folder, so neither pip nor a compiler is in what is copied.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# pyproject.toml says what is needed, constraints.txt which versions.
FROM ${PYTHON_IMAGE} AS builder
# Another package index than pip's own. They are seen in this stage alone, of which nothing but installed files is copied.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv --without-pip /opt/streamrep
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    open('requirements.txt', 'w').write('\n'.join(project['dependencies'])); \
    [open(f'requirements-{name}.txt', 'w').write('\n'.join(needed)) \
     for name, needed in project['optional-dependencies'].items()]"

FROM builder AS code
COPY . .
RUN python -m pip --python /opt/streamrep/bin/python install --no-deps --target /app . \
    && rm -rf /app/bin

# A CPU build of torch: from the index that pip is set up for, else from PyTorch's own. Never the default build, which
# brings gigabytes of CUDA libraries. Its headers and C++ tests go, since there is no compiler to use them.
FROM builder AS deps-cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN torch="$(sed -n 's/^torch==//p' constraints.txt)" \
    && install="python -m pip --python /opt/streamrep/bin/python install -c constraints.txt" \
    && ($install "torch==${torch}+cpu" || $install --extra-index-url "${TORCH_CPU_INDEX}" "torch==${torch}+cpu") \
    && $install -r requirements.txt \
    && rm -r /opt/streamrep/lib/python3*/site-packages/torch/include /opt/streamrep/lib/python3*/site-packages/torch/test

FROM ${PYTHON_IMAGE} AS runtime
# No secrets in here: keys come in volumes. The trainer's pages are on the container's own loopback; a generator gets an
# address from whoever starts it, since `streamrep up` has both in one container.
ENV PATH=/opt/streamrep/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/engines \
    STREAMREP_RUN__DIR=/runs \
    STREAMREP_CAPTIONS__INDEX=/runs/.captions \
    STREAMREP_MONITOR__BIND=9464
# Where compose mounts its volumes. A new volume takes over owner and mode of the folder that it is mounted on.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /engines streamrep \
    && install -d -o streamrep -g streamrep -m 755 /runs /models /engines /pools /files \
    && install -d -o streamrep -g streamrep -m 700 /keys /keys/trainer /keys/trainer/workers /keys/generator
USER streamrep
WORKDIR /files
HEALTHCHECK --interval=15s --timeout=10s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/healthz', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "launcher"]
CMD ["--help"]

FROM runtime AS cpu
COPY --from=deps-cpu /opt/streamrep /opt/streamrep
COPY --from=code /app /app

# Extras of pyproject.toml. `gpu tensorrt` brings the full TensorRT and torch-tensorrt, gigabytes of NVIDIA's own index.
FROM builder AS deps-gpu
ARG GPU_EXTRAS="gpu rtx"
RUN python -m pip --python /opt/streamrep/bin/python install -c constraints.txt -r requirements.txt \
        $(printf -- '-r requirements-%s.txt ' ${GPU_EXTRAS}) \
    && /opt/streamrep/bin/python -c "import torch; assert torch.version.cuda, 'the package index gave a CPU build of torch'"

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=deps-gpu /opt/streamrep /opt/streamrep
COPY --from=code /app /app
