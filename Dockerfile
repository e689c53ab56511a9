FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY operator ./operator
# The bytecode is made here: where the operator runs nothing can be written, and compiling pydo at every start takes
# 200 MiB and seconds (docs/adr/0002). Unchecked, since a file's time may change on its way into the image.
RUN python -m venv --without-pip /opt/hasite \
    && pip --python /opt/hasite/bin/python install --no-cache-dir --no-compile --constraint constraints.txt . \
    && /opt/hasite/bin/python -m compileall -q -o 2 --invalidation-mode unchecked-hash /opt/hasite/lib

FROM python:3.13-slim
COPY --from=build /opt/hasite /opt/hasite
ENV PATH=/opt/hasite/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONOPTIMIZE=2
# What glibc keeps of freed memory counts as used by the container (docs/performance.md).
ENV MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072 MALLOC_MMAP_THRESHOLD_=65536
# The base has no user of this number, and asyncssh refuses every connection when it finds no name for its own user.
ENV LOGNAME=hasite HOME=/nonexistent
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["hasite-operator"]
CMD ["run"]
