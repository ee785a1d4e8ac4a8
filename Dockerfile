# One image, many commands: `python -m services.<stage>` runs a stage, `baton …` everything an operator does.
ARG BASE=python:3.11-slim
FROM ${BASE}

LABEL org.opencontainers.image.title="Baton" \
      org.opencontainers.image.description="Durable AI orchestration on Kafka"

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/app \
    PATH=/opt/baton/bin:${PATH}

# Dependencies change less often than the code, so they are a layer of their own; every file's hash is checked.
COPY requirements/run.txt /tmp/requirements/run.txt
RUN python3 -m venv /opt/baton \
 && /opt/baton/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/requirements/run.txt \
 && /opt/baton/bin/python -m compileall -q /opt/baton/lib \
 && rm -r /tmp/requirements

# The code is copied, not installed: nothing is built, so nothing beyond the hashed list is fetched.
WORKDIR /app
COPY schemas schemas
COPY shared shared
COPY services services
COPY baton.yaml baton.yaml
RUN python3 -m compileall -q . \
 && printf '#!/bin/sh\nexec python -m services.cli "$@"\n' > /usr/local/bin/baton \
 && chmod 755 /usr/local/bin/baton

USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["baton", "--help"]
