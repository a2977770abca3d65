"""Results in a bucket, and the Kubernetes profile: S3 is moto's server, the cluster a stand-in for its interface."""

import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from conftest import REPO, Run, Study, new_study

PROFILE = REPO / "profiles" / "kubernetes"
CREDENTIALS = {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "test", "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "test"}
SITE = "layers.1.mlp"


@pytest.fixture(scope="module", autouse=True)
def plugins():
    needed = ("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_s3", "moto")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}: pip install -r requirements-cloud.lock")


@pytest.fixture(scope="module")
def s3(plugins):
    """An S3 server: its address, and a function that lists what a bucket holds, by key."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.resource(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )

    def held(bucket: str) -> dict[str, bytes]:
        if bucket not in [found.name for found in client.buckets.all()]:
            return {}
        return {found.key: found.get()["Body"].read() for found in client.Bucket(bucket).objects.all()}

    yield address, held
    server.stop()


class Stored(Study):
    """A study whose results are in a bucket."""

    where: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        return super().command(*arguments, *self.where)

    def snakemake(self, *arguments: str, timeout: float = 300, **environment: str) -> Run:
        return super().snakemake(*arguments, timeout=timeout, **CREDENTIALS | environment)

    def edit(self, **values) -> "Stored":
        return stored(super().edit(**values), self.where)


def stored(study: Study, where: tuple[str, ...]) -> Stored:
    made = Stored(study.folder, study.config)
    made.where = where
    return made


def in_bucket(address: str, prefix: str) -> tuple[str, ...]:
    return ("--default-storage-provider", "s3", "--default-storage-prefix", f"s3://{prefix}",
            "--storage-s3-endpoint-url", address)  # fmt: skip


def test_every_option_of_the_profile_is_one_that_there_is(monkeypatch, tmp_path):
    """Snakemake with the installed plugins reads the profile, and refuses one with another option."""
    from snakemake.cli import parse_args

    monkeypatch.chdir(tmp_path)
    _, given = parse_args(["--profile", str(PROFILE), "--snakefile", str(REPO / "Snakefile")])
    assert given.executor == "kubernetes"
    assert given.default_storage_provider == "s3"
    assert not given.shared_fs_usage
    options = yaml.safe_load((PROFILE / "config.yaml").read_text())
    assert set(options) <= {name.replace("_", "-") for name in vars(given)}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options | {"kubernetes-gpus": 1}))
    with pytest.raises(SystemExit):
        parse_args(["--profile", str(tmp_path), "--snakefile", str(REPO / "Snakefile")])


def test_a_study_in_a_bucket(s3, tmp_path, tiny_model):
    """Results are in the bucket and nowhere else; another folder has nothing to do; an edit reruns what it affects."""
    address, held = s3
    study = new_study(tmp_path / "study", tiny_model).edit(conditions=["reason"])
    study = stored(study, in_bucket(address, "results/of/mine"))
    run = study.run()
    assert "# tiny" in run.output
    assert "Report: s3://results/of/mine/results/tiny/report.html" in run.output
    found = {key.removeprefix("of/mine/results/tiny/"): body for key, body in held("results").items()}
    made = {key for key in found if not key.startswith(("logs/", "benchmarks/"))}
    assert {"problems.parquet", "model.json", "vocabulary.parquet", "sae_text.parquet", "summary.md", "report.html",
            "traces/reason/00000-00001.parquet", f"saes/trained/{SITE}/info.json",
            f"readings/trained/{SITE}/reason/00000-00001/features.parquet", f"tables/trained/{SITE}/verdict.parquet",
            f"plots/trained/{SITE}/waterfall.png", "tables/trained/headline.parquet"} <= made  # fmt: skip
    for path in tiny_model.iterdir():  # what is linked to here is there itself
        assert found[f"model/{path.name}"] == path.read_bytes()
    assert b"Rule graph" in found["report.html"]
    assert {key for key in found if "of_a_base_rule" in key} == set()
    assert f"logs/tables/trained/{SITE}/verdict.log" in found
    assert not [path for path in study.results.rglob("*") if path.name != "rules.json" and path.is_file()]

    assert study.plan() == set()
    fresh = stored(Study(tmp_path / "fresh", study.config), study.where)
    fresh.folder.mkdir()
    for name in ("problems.jsonl", "text.jsonl"):
        shutil.copy2(study.folder / name, fresh.folder)
    assert fresh.plan() == set()

    assert study.edit(report={"max_megabytes": 5}).plan() == {"report"}
    warmer = study.edit(generation__temperature=0.5)
    assert warmer.run("--until", "generate").jobs == {"generate reason 00000-00001"}
    traces = "traces/reason/00000-00001.parquet"
    assert held("results")[f"of/mine/results/tiny/{traces}"] != found[traces]


def test_a_failed_job_leaves_nothing_in_the_bucket(s3, tmp_path, tiny_model):
    address, held = s3
    damaged = shutil.copytree(tiny_model, tmp_path / "model")
    (damaged / "model.safetensors").write_bytes(b"cut")
    study = stored(new_study(tmp_path / "study", damaged), in_bucket(address, "failed"))
    run = study.snakemake("--until", "model", "problems", "--keep-going")
    assert run.code == 1
    assert "is no whole safetensors file" in run.output  # found when its folder was begun
    assert [key for key in held("failed") if "/logs/" not in key and "/benchmarks/" not in key] == [
        "results/tiny/problems.parquet"
    ]
    assert "results/tiny/logs/model.log" in held("failed")


class Cluster:
    """What Kubernetes shows the executor of jobs: each is run, in an empty folder, by a shell with its environment.

    No image, volume, scheduler or limit: `asked` keeps what each job asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.secrets, self.pods, self.asked, self.most = folder, {}, {}, [], 0
        tools = folder / "bin"
        tools.mkdir(parents=True)
        (tools / "pip").write_text("#!/bin/sh\n")  # the storage plugin that a job installs first is here
        (tools / "pip").chmod(0o755)
        self.environment = {name: value for name, value in os.environ.items() if name not in CREDENTIALS}
        self.environment["PATH"] = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def answer(self, verb: str, path: str, body: dict) -> dict:
        kind, _, name = re.search(r"/namespaces/default/(\w+)(/([\w-]+))?", path).groups()
        if (verb, kind) == ("POST", "secrets"):
            self.secrets = {key: base64.b64decode(value).decode() for key, value in body["data"].items()}
        if (verb, kind) == ("POST", "jobs"):
            self.start(body["metadata"]["name"], body["spec"]["template"]["spec"]["containers"][0])
        if (verb, kind) == ("GET", "jobs"):
            code = self.pods[name].poll()
            return {"status": {"active": 1} if code is None else {"failed" if code else "succeeded": 1}}
        return {"items": []} if kind == "pods" else {}

    def start(self, name: str, container: dict) -> None:
        self.asked.append(container)
        folder = self.folder / name
        folder.mkdir()
        given = {item["name"]: self.secrets[item["valueFrom"]["secretKeyRef"]["key"]] for item in container["env"]}
        with (folder / "printed").open("w") as printed:
            self.pods[name] = subprocess.Popen(
                [*container["command"], *container["args"]], cwd=folder, env=self.environment | given, stdout=printed,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.most = max(self.most, sum(pod.poll() is None for pod in self.pods.values()))


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path / "cluster")

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            text = json.dumps(made.answer(self.command, self.path, json.loads(body or "{}"))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    access = {"apiVersion": "v1", "kind": "Config", "clusters": [here], "contexts": [context],
              "users": [{"name": "me", "user": {}}], "current-context": "here"}  # fmt: skip
    (tmp_path / "access.yaml").write_text(yaml.safe_dump(access))
    made.access = str(tmp_path / "access.yaml")
    yield made
    for pod in made.pods.values():
        pod.kill()
    server.shutdown()


def test_the_profile_runs_jobs_that_share_nothing_but_the_bucket(s3, cluster, tmp_path, tiny_model):
    """A job finds its sources, model and problems in the bucket, wherever it puts its copies; it asks for a GPU."""
    address, held = s3
    folder = tmp_path / "study"
    for name in ("workflow", "envs", "profiles"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "Snakefile", folder)
    study = new_study(folder, tiny_model)
    (folder / "config.yaml").write_text(yaml.safe_dump(study.config))
    for arguments in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    done = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "--workflow-profile", "profiles/kubernetes", "--configfile",
         "config.yaml", "--default-storage-prefix", "s3://cluster", "--storage-s3-endpoint-url", address,
         "--container-image", "image", "--until", "generate",
         "--remote-job-local-storage-prefix", "elsewhere"],
        cwd=folder, env=os.environ | CREDENTIALS | {"KUBECONFIG": cluster.access}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
    )  # fmt: skip
    printed = "".join(path.read_text() for path in cluster.folder.glob("*/printed"))
    assert done.returncode == 0, done.stdout + printed
    assert {
        key for key in held("cluster") if "traces/" in key and "/logs/" not in key and "/benchmarks/" not in key
    } == {f"results/tiny/traces/{condition}/00000-00001.parquet" for condition in ("reason", "bypass")}
    assert len(cluster.asked) == cluster.most == 2  # none waited for another's GPU
    for container in cluster.asked:
        assert container["image"] == "image"
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert container["resources"]["limits"]["memory"] == "8000M"
        assert "test" not in {item.get("value") for item in container["env"]}
