# The service: `featurestore serve` over the repository mounted at /repo, as a user without rights.
FROM python:3.13-slim

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY featurestore featurestore
RUN pip install --no-cache-dir --constraint constraints.txt ".[jwt,postgresql]" \
    && useradd --create-home --uid 10001 featurestore \
    && mkdir /repo /state && chown featurestore /repo /state

USER featurestore
WORKDIR /repo
EXPOSE 6570
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:6570/healthz', timeout=3)"]
ENTRYPOINT ["featurestore", "--repo", "/repo"]
CMD ["serve", "--host", "0.0.0.0", "--port", "6570"]
