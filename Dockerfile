# The whole environment in a container, from the lock file:
#
#     docker build -t thoughtscope .
#     docker run --rm -v "$PWD/results:/thoughtscope/results" -v "$PWD/.snakemake:/thoughtscope/.snakemake" \
#         thoughtscope --cores all
#
# .snakemake is where Snakemake keeps what results were made with: without it an edit of the config runs nothing again.
# A config of yours: -v "$PWD/config:/thoughtscope/config". With a GPU: --gpus all.
FROM python:3.11-slim
WORKDIR /thoughtscope
COPY requirements.lock .
# A compiler, for as long as it is needed: pycosat, which reasoning_gym takes, has no wheel.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && pip install --no-cache-dir --requirement requirements.lock \
    && apt-get purge -y --auto-remove gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . .
ENTRYPOINT ["snakemake"]
CMD ["--cores", "all"]
