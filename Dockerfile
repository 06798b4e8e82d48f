# The image of a server (docs/operate/container.md).
#
#   docker build --tag resight .                             inference on the processor
#   docker build --tag resight-gpu --build-arg RUNTIME=gpu . ONNX Runtime with CUDA
#
# Versions and hashes of all packages are those of constraints.txt.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG RUNTIME=cpu
RUN pip install --no-cache-dir uv==0.13.9 cyclonedx-bom==7.5.0
WORKDIR /src
RUN python -m venv --without-pip /opt/resight
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON=/opt/resight/bin/python
# packages first: a change of the code does not install them again
COPY pyproject.toml constraints.txt ./
RUN uv pip install --no-cache --constraint constraints.txt --requirements pyproject.toml --extra ${RUNTIME} --extra s3
COPY . .
RUN uv pip install --no-cache --no-deps . \
    && cyclonedx-py environment /opt/resight/bin/python --output-file /opt/resight/sbom.cdx.json

FROM python:${PYTHON}
COPY --from=build /opt/resight /opt/resight
COPY examples/models /opt/resight/models
# /data is the only folder that is written to, apart from /tmp and /dev/shm: the root file system can be read-only
RUN useradd --uid 10001 --home-dir /data --shell /usr/sbin/nologin resight && install --directory --owner resight /data
ENV PATH=/opt/resight/bin:$PATH RESIGHT_HOME=/data PYTHONDONTWRITEBYTECODE=1
USER 10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["resight"]
CMD ["up", "--block", "--host", "0.0.0.0"]
