# The command with the FLUX plugin.
#   docker build -t runner .                                   for the processor
#   docker build -t runner:cuda --build-arg PYTORCH=cu130 .    for a card: the name of a PyTorch build
#   docker run --rm -v "$PWD:/work" runner demo
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheels
COPY pyproject.toml README.md CHANGELOG.md LICENSE /source/
COPY runner /source/runner
COPY plugins/flux /source/plugins/flux
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source /source/plugins/flux

FROM python:${PYTHON}-slim
ARG PYTORCH=cpu
COPY constraints.txt /tmp/constraints.txt
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir -c /tmp/constraints.txt \
        --extra-index-url "https://download.pytorch.org/whl/${PYTORCH}" \
        /wheels/*.whl

RUN useradd --create-home --uid 1000 runner && install -d -o runner /work /models
USER runner
# the hub's cache, and what runner has hashed and measured: a volume that outlives the container
ENV HF_HOME=/models RUNNER_CACHE=/models/runner
WORKDIR /work
ENTRYPOINT ["runner"]
CMD ["--help"]
