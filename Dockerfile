# QuantGuard's image: `docker build .` for NVIDIA GPUs, `docker build --target cpu .` without CUDA.
# Every version comes from constraints.txt; a package that is not named there fails the build.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS system
# bitsandbytes' CPU kernels are linked against the system's OpenMP.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/apt /var/log/*.log
# The root is mounted read-only: all that a library may want to write goes to /tmp, a tmpfs.
ENV PATH=/opt/quantguard/bin:$PATH \
    HOME=/tmp \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GIT_PYTHON_REFRESH=quiet \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# What QuantGuard itself needs, in a stage of its own: the layers that copy the list change only when the list does.
FROM system AS requirements
WORKDIR /build
COPY pyproject.toml image/requirements.py ./
RUN python3 requirements.py > requirements.txt

# What building needs and running does not: pip, setuptools, and what writes the bill of materials.
FROM system AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/quantguard
WORKDIR /build
COPY constraints.txt image/compile.sh ./

# torch first: it is most of the image and changes least.
FROM build AS build-cpu
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN pip install --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url ${TORCH_INDEX_URL}} torch
COPY --from=requirements /build/requirements.txt ./
RUN pip install --constraint constraints.txt --requirement requirements.txt \
 && sh compile.sh /opt/quantguard/lib
COPY pyproject.toml setup.py image/finish.sh image/sbom.py README.md LICENSE ./
COPY quantguard quantguard
COPY policies policies
RUN sh finish.sh

FROM build AS build-gpu
RUN pip install --constraint constraints.txt torch
COPY --from=requirements /build/requirements.txt ./
RUN pip install --constraint constraints.txt --requirement requirements.txt \
 && sh compile.sh /opt/quantguard/lib
COPY pyproject.toml setup.py image/finish.sh image/sbom.py README.md LICENSE ./
COPY quantguard quantguard
COPY policies policies
RUN sh finish.sh

FROM system AS base
COPY policies /usr/share/quantguard/policies
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="QuantGuard" \
      org.opencontainers.image.description="A gate against backdoors that quantization switches on in language models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/quantguard/quantguard" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      quantguard.sbom="/usr/share/quantguard/sbom.cdx.json"
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["quantguard"]
CMD ["--help"]

FROM base AS cpu
COPY --from=build-cpu /opt/quantguard /opt/quantguard
COPY --from=build-cpu /build/sbom.cdx.json /usr/share/quantguard/sbom.cdx.json

FROM base AS gpu
COPY --from=build-gpu /opt/quantguard /opt/quantguard
COPY --from=build-gpu /build/sbom.cdx.json /usr/share/quantguard/sbom.cdx.json
