# The service: `featurestore serve` over the repository mounted at /repo, as a user without rights, over a root file system that nobody writes to.
# What it writes lies in /state, and in /tmp while it runs. `make digests` tells which bytes PYTHON_IMAGE names today; a build that is to
# be repeated gives them: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY deploy/image/build-requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement build-requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY featurestore featurestore
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .

FROM ${PYTHON_IMAGE}
COPY deploy/image/requirements.txt /usr/share/featurestore/
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement /usr/share/featurestore/requirements.txt
COPY --from=build /wheel /wheel
RUN pip install --no-cache-dir --no-deps --no-index /wheel/*.whl && rm -r /wheel \
    && useradd --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --uid 10001 featurestore \
    && mkdir --mode=0700 /repo /state /watch && chown featurestore /repo /state /watch

USER 10001
WORKDIR /repo
ENV PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
EXPOSE 6570
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:6570/healthz', timeout=3)"]
ENTRYPOINT ["featurestore", "--repo", "/repo"]
CMD ["serve", "--host", "0.0.0.0", "--port", "6570"]
