"""What the stack's file, docker-compose.yml, promises; `test_services.py` has what holds of the services."""

import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import PATIENCE, ROOT, free_port

from stack import local
from stack.with_secrets import with_secrets

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
STAYING = [name for name, service in SERVICES.items() if service["restart"] == "unless-stopped"]
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY")


def given(folder: Path, **changed: str) -> dict[str, str]:
    """The variables of docker-compose.yml, with a folder of new secrets, which are any text; `kept` reads them."""
    (folder / "secrets").mkdir()
    for name in COMPOSE["secrets"]:
        (folder / "secrets" / name).write_text(f"{name} {secrets.token_hex(8)}@/%:'\n")
    return {"SECRETS": str(folder / "secrets")} | changed


def kept(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (folder / "secrets").iterdir()}


# ----------------------------------------------------------------------------------------------------------- the file


def against_the_schema(path: Path) -> int:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_the_file_is_a_compose_file() -> None:
    """The file obeys the schema of the compose specification."""
    assert against_the_schema(ROOT / "docker-compose.yml") == 0


def test_a_wrong_compose_file_would_be_found(tmp_path: Path) -> None:
    """The schema knows the keys: it refuses a file with a misspelt one."""
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((ROOT / "docker-compose.yml").read_text().replace("read_only:", "readonly:"))
    assert against_the_schema(wrong) == 1


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str) -> None:
    """An image has an exact version, and so has what it is built from."""
    pinned = re.compile(r"[\w./-]+:\d+\.\d+(\.\d+)?(-[\w.-]+)?(@sha256:[0-9a-f]{64})?")
    assert pinned.fullmatch(SERVICES[name]["image"])
    if build := SERVICES[name].get("build"):
        recipe = (ROOT / build["dockerfile"]).read_text()
        stages = set(re.findall(r"^FROM .* AS (\w+)$", recipe, re.MULTILINE))
        sources = [image for image in re.findall(r"^FROM (\S+)", recipe, re.MULTILINE) if image not in stages]
        assert sources
        assert all(pinned.fullmatch(image) for image in sources), sources


@pytest.mark.parametrize("name", SERVICES)
def test_a_port_is_published_to_this_machine_alone(name: str) -> None:
    """No service can be reached from another machine, and the database not even from this one."""
    ports = SERVICES[name].get("ports", [])
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+|\$\{\w+:-\d+\}):\d+", port) for port in ports)
    assert name != "postgres" or not ports
    assert "network_mode" not in SERVICES[name]


def test_the_database_is_reached_by_the_tracking_server_alone() -> None:
    """The database is on a network of its own that leads nowhere, with the tracking server."""
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "database" in service.get("networks", [])} == {
        "postgres",
        "mlflow",
    }
    assert SERVICES["postgres"]["networks"] == ["database"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_the_file_or_the_environment(name: str) -> None:
    """Each password and key is a file that the service is given; the scheduler alone needs none."""
    service = SERVICES[name]
    found = {key: value for key, value in service["environment"].items() if SECRET.search(key)}
    assert {value.removeprefix("/run/secrets/") for value in found.values()} == set(service.get("secrets", []))
    assert all(key.endswith("_FILE") for key in found)
    assert found or name == "scheduler"
    # What does not read the files itself has them read for it.
    itself = {"postgres", "serving", "scheduler"}
    assert service.get("entrypoint") == ["python", "stack/with_secrets.py"] or name in itself
    # Docker gives a read-only container no secret from its own environment.
    assert {source["file"] for source in COMPOSE["secrets"].values()} == {
        f"${{SECRETS:-secrets}}/{secret}" for secret in COMPOSE["secrets"]
    }


@pytest.mark.parametrize("missing", COMPOSE["secrets"])
@pytest.mark.parametrize("value", [None, "\n"], ids=["none", "empty"])
def test_a_missing_secret_stops_the_start(tmp_path: Path, missing: str, value: str | None) -> None:
    """Without a secret, or with an empty one, nothing starts, and the message names it and the remedy."""
    values = given(tmp_path)
    path = tmp_path / "secrets" / missing
    path.unlink()
    if value:
        path.write_text(value)
    with pytest.raises(SystemExit, match=rf"{path} is missing or empty.*make secrets"):
        local.compose(values)
    with pytest.raises(SystemExit, match="make secrets"):
        with_secrets({"SOME_PASSWORD_FILE": str(path)})


def test_a_command_finds_its_secrets_in_its_environment(tmp_path: Path) -> None:
    """The content of each file stands for its path, without the end of the line; other files stay what they are."""
    (tmp_path / "secret").write_text("a b'$x\n")
    files = {"A_PASSWORD_FILE": str(tmp_path / "secret"), "SSL_CERT_FILE": "/etc/cert.pem"}
    program = "import os; print([os.environ.get(n) for n in ('A_PASSWORD', 'A_PASSWORD_FILE', 'SSL_CERT_FILE')])"
    command = [sys.executable, str(ROOT / "stack" / "with_secrets.py"), sys.executable, "-c", program]
    done = subprocess.run(command, env=files, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["a b'$x", None, "/etc/cert.pem"])


def test_the_secrets_are_made_of_random_digits_once(tmp_path: Path) -> None:
    """`make secrets` makes each secret that is not there, in a folder that its user alone can enter."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    make = ["make", "-C", tmp_path, f"PYTHON={sys.executable}", "secrets"]
    subprocess.run(make, capture_output=True, check=True)
    made = kept(tmp_path)
    assert set(made) == set(COMPOSE["secrets"])
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in made.values())
    assert len(set(made.values())) == len(made)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    # The users of the containers are others than this one.
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in (tmp_path / "secrets").iterdir())
    (tmp_path / "secrets" / "admin_password").unlink()
    subprocess.run(make, capture_output=True, check=True)
    again = kept(tmp_path)
    assert again.pop("admin_password") != made.pop("admin_password")
    assert again == made


def test_what_is_secret_is_not_committed() -> None:
    """Git ignores the secrets, .env and the local accounts."""
    for name in ("secrets/admin_password", ".env", "basic_auth.db"):
        ignored = subprocess.run(["git", "-C", ROOT, "check-ignore", "--quiet", "--no-index", name], check=False)
        if ignored.returncode == 128:
            pytest.skip("this is no Git checkout")
        assert ignored.returncode == 0, name


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_few_rights(name: str) -> None:
    """A service has no capability, gains none, writes to its volumes and memory alone, and is not root."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"} & set(service)
    if "user" in service:
        user = service["user"]
    else:
        user = re.findall(r"^USER (\S+)", (ROOT / service["build"]["dockerfile"]).read_text(), re.MULTILINE)[-1]
    assert user.split(":")[0] not in {"root", "0"}
    assert all(volume.split(":")[0] in COMPOSE["volumes"] for volume in service.get("volumes", []))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_limits(name: str) -> None:
    """Memory, processors, processes and what it may write to memory's file system; its user is a number."""
    service = SERVICES[name]
    assert re.fullmatch(r"\d+g", service["mem_limit"])
    assert service["cpus"] > 0
    assert service["pids_limit"] > 0
    assert all("size=" in mount for mount in service["tmpfs"])
    if "build" in service:
        recipe = (ROOT / service["build"]["dockerfile"]).read_text()
        assert all(user.isdecimal() for user in re.findall(r"^USER (\S+)", recipe, re.MULTILINE))


def test_the_model_servers_image_has_what_it_needs_alone() -> None:
    """Neither TensorFlow, Keras nor MLflow."""
    recipe = (ROOT / "serving" / "Dockerfile").read_text()
    assert re.findall(r"^COPY (\S+)", recipe, re.MULTILINE) == ["serving/requirements.lock", "serving"]
    pins = locked("serving/requirements.lock")
    assert {"numpy", "onnx", "onnxruntime", "pillow", "uvicorn"} <= pins.keys()
    assert not pins.keys() & {"tensorflow", "tensorflow-cpu", "keras", "mlflow", "mlflow-skinny"}


def locked(path: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / path).read_text(), re.MULTILINE))


def test_every_package_of_an_image_is_installed_by_its_hashes() -> None:
    """Each image takes what a lock has, by hash, at the version of the project's own lock; so does `make`."""
    for path in ("stack/Dockerfile", "serving/Dockerfile", "Makefile"):
        installs = re.findall(r"pip install (?!.*torch).*", (ROOT / path).read_text())
        assert installs
        assert all("--require-hashes" in install for install in installs), path
    whole = locked("requirements.lock").items()
    for path in ("requirements.lock", "stack/requirements.lock", "serving/requirements.lock"):
        lines = (ROOT / path).read_text().splitlines()
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            assert line.startswith("    --hash=sha256:") or following.startswith("    --hash=sha256:"), (path, line)
        assert locked(path).items() <= whole
        assert not any("://" in line for line in lines)


@pytest.mark.parametrize("name", STAYING)
def test_a_service_that_stays_is_watched(name: str) -> None:
    """A service that is to stay up has a health check, and is started again when it ends."""
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} < set(SERVICES[name]["healthcheck"])


def test_which_services_stay() -> None:
    """Database, tracking server, model server and cluster stay; the accounts are made once, the trainer is asked."""
    assert STAYING == ["postgres", "mlflow", "serving", "scheduler", "worker"]
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"trainer": ["trainer"], "scheduler": ["cluster"], "worker": ["cluster"]}


def test_the_scheduler_is_reached_by_workers_and_the_trainer_alone() -> None:
    """What would run any program for whoever asks is on an internal network, and publishes no port."""
    assert COMPOSE["networks"]["cluster"] == {"internal": True}
    members = {name for name, service in SERVICES.items() if "cluster" in service.get("networks", [])}
    assert members == {"scheduler", "worker", "trainer"}
    assert SERVICES["scheduler"]["networks"] == ["cluster"]
    assert not any("ports" in SERVICES[name] for name in members)


def test_a_worker_is_as_the_trainer_is() -> None:
    """A worker has the trainer's image, account, server, data and programs, a journal of its own, and one core."""
    worker, trainer = SERVICES["worker"], SERVICES["trainer"]
    for part in ("image", "build", "volumes", "networks"):
        assert worker[part] == trainer[part]
    differences = dict(worker["environment"].items() ^ trainer["environment"].items())
    assert set(differences) == {"XDG_STATE_HOME"}
    assert {"--nthreads=1", "--memory-limit=0"} < set(worker["command"])


@pytest.mark.slow
def test_the_cluster_carries_out_what_it_is_given(tmp_path: Path) -> None:
    """The scheduler and a worker, started as the file says, become healthy, and a task comes back from the worker."""
    from mlplab import cluster, worker

    ports = {"8786": str(free_port()), "8787": str(free_port())}
    services = local.on_this_machine(local.compose(given(tmp_path)), tmp_path)

    def here(words: list[str]) -> list[str]:
        for inside, outside in ports.items():
            words = [word.replace(inside, outside) for word in words]
        return [word.replace("0.0.0.0", "127.0.0.1").replace("//scheduler:", "//127.0.0.1:") for word in words]

    for name in ("scheduler", "worker"):
        service = services[name]
        service |= {"command": here(service["command"]), "healthcheck": here(service["healthcheck"])}
        # The environment of the tests, which the workers of an image have in common with their trainer.
        service["environment"] |= {key: os.environ[key] for key in worker.FLAGS if key in os.environ}
    with local.running(services, "scheduler", "worker", logs=tmp_path) as processes:
        local.wait_until_healthy("worker", services["worker"], processes["worker"], PATIENCE)
        with cluster.workers(f"tcp://127.0.0.1:{ports['8786']}") as workers:
            assert workers.count == 1
            ((_, outcome),) = workers.map(os.path.basename, ["a/task"])
    assert outcome.get() == "task"
