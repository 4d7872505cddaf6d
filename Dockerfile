# StreamLens as replayer or worker, without MovieLens data (its terms differ) and without torch (neither needs it).
FROM python:3.12.12-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/venv
COPY pyproject.toml requirements.lock README.md LICENSE NOTICE ./
COPY agents agents
COPY dashboards dashboards
COPY featurestore featurestore
COPY models models
COPY streamlens streamlens
COPY streams streams
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip wheel --no-deps --wheel-dir /wheels . \
    && /opt/venv/bin/pip install --constraint requirements.lock "$(echo /wheels/streamlens-*.whl)[kafka,postgres]"

FROM python:3.12.12-slim-bookworm
RUN groupadd --gid 10001 streamlens \
    && useradd --no-log-init --uid 10001 --gid streamlens --home-dir /var/lib/streamlens --no-create-home streamlens \
    && install --directory --owner=streamlens --group=streamlens /var/lib/streamlens
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/streamlens
ENTRYPOINT ["streamlens"]
CMD ["--help"]
