# The whole environment in a container, from the lock file:
#
#     docker build -t thoughtscope .
#     docker run --rm -v "$PWD/results:/thoughtscope/results" thoughtscope --cores all
#
# A config of yours: -v "$PWD/config:/thoughtscope/config". With a GPU: --gpus all.
FROM python:3.11-slim
WORKDIR /thoughtscope
COPY requirements.lock .
RUN pip install --no-cache-dir --requirement requirements.lock
COPY . .
ENTRYPOINT ["snakemake"]
CMD ["--cores", "all"]
