FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY operator ./operator
RUN python -m venv /opt/hasite && /opt/hasite/bin/pip install --no-cache-dir --no-compile .

FROM python:3.13-slim
COPY --from=build /opt/hasite /opt/hasite
ENV PATH=/opt/hasite/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["hasite-operator"]
CMD ["run"]
