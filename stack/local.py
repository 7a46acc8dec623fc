"""The services of docker-compose.yml as processes of this machine: the same commands, the same environment.

`make stack` runs this file. It takes the databases of the working directory, sqlite both, in PostgreSQL's place. Its
secrets are those of Docker, the files of `secrets/`.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import yaml
from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parent.parent
POSTGRESQL = "postgresql+psycopg2:///mlflow"
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "MLPLAB_DATA_DIR")
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::-(?P<word>[^}]*))?\})")


def compose(values: Mapping[str, str | None]) -> dict[str, Any]:
    """docker-compose.yml with its variables filled in; a secret that is missing ends the program."""

    def variable(match: re.Match[str]) -> str:
        return "$" if match["name"] is None else values.get(match["name"]) or match["word"] or ""

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: filled(value) for key, value in part.items()}
        if isinstance(part, list):
            return [filled(value) for value in part]
        return VARIABLE.sub(variable, part) if isinstance(part, str) else part

    stack: dict[str, Any] = filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))
    for secret in stack["secrets"].values():
        path = secret["file"] = ROOT / secret["file"]
        if not path.is_file() or not path.read_text().strip():
            raise SystemExit(f"{path} is missing or empty: set it, or have all made (make secrets)")
    return stack


def on_this_machine(stack: dict[str, Any], volumes: Path) -> dict[str, Any]:
    """The services with this machine's addresses and folders in place of the containers'.

    A service is reached at its published port, listens on the loopback address alone, and finds its volumes as folders
    in `volumes` and its configuration files where they are in the project.
    """
    ports = {
        name: service["ports"][0].split(":")[1:] for name, service in stack["services"].items() if "ports" in service
    }
    services = {}
    for name, service in stack["services"].items():
        places = {f"//{other}:{inside}": f"//127.0.0.1:{outside}" for other, (outside, inside) in ports.items()}
        if name in ports:
            outside, inside = ports[name]
            places |= {"--host=0.0.0.0": "--host=127.0.0.1", f"--port={inside}": f"--port={outside}"}
            places |= {f"//127.0.0.1:{inside}/": f"//127.0.0.1:{outside}/"}
        for mounted in service.get("volumes", []):
            volume, target = mounted.split(":")
            places[target] = str(volumes / volume)
        for secret in service.get("secrets", []):
            places[f"/run/secrets/{secret}"] = str(stack["secrets"][secret]["file"])
        for mounted in service.get("configs", []):
            places[mounted["target"]] = str(ROOT / stack["configs"][mounted["source"]]["file"])

        def moved(text: str, places: dict[str, str] = places) -> str:
            for there, here in places.items():
                text = text.replace(there, here)
            return text

        services[name] = {
            "entrypoint": [moved(word) for word in service.get("entrypoint", [])],
            "command": [moved(word) for word in service.get("command", [])],
            "environment": {key: moved(value) for key, value in service["environment"].items()},
            "healthcheck": [moved(word) for word in service.get("healthcheck", {}).get("test", [])[1:]],
            "needs": service.get("depends_on", {}),
        }
    return services


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """What a service's process finds in its environment: its own, and little else."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    own: dict[str, str] = service["environment"]
    return kept | {"PATH": programs} | own


def start(service: Mapping[str, Any], output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """The service's process, in a group of its own: a Ctrl-C is for us, and we stop it."""
    return subprocess.Popen(
        [*service["entrypoint"], *service["command"]],
        cwd=ROOT,
        env=environment(service),
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=True,
    )


def wait_until_healthy(name: str, service: Mapping[str, Any], process: subprocess.Popen[bytes], seconds: float) -> None:
    """Returns when the health check of the service passes; a service that ends or does not come up ends the program."""
    deadline = time.monotonic() + seconds
    while subprocess.run(service["healthcheck"], env=environment(service), capture_output=True, check=False).returncode:
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} is not healthy after {seconds:.0f} s")
        time.sleep(0.3)


def stop(process: subprocess.Popen[bytes], seconds: float = 20) -> None:
    """Asks a process to end, and after a while sees to it that it and its own did."""
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def running(services: Mapping[str, Any], *names: str, logs: Path | None = None) -> Iterator[dict[str, Any]]:
    """The named services, each started when what it needs is there, and stopped at the end in the opposite order."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in names:
            for needed, state in services[name]["needs"].items():
                if needed not in processes:
                    continue
                if state["condition"] == "service_healthy":
                    wait_until_healthy(needed, services[needed], processes[needed], 120)
                elif code := processes[needed].wait(120):
                    raise SystemExit(f"{needed} ended with exit code {code}")
            with (logs / f"{name}.log").open("wb") if logs else nullcontext() as output:
                processes[name] = start(services[name], output)
        yield processes
    finally:
        for process in reversed(processes.values()):
            stop(process)


def main() -> None:
    """The tracking server and the model server on sqlite, until Ctrl-C or until one of them ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    values = {"MLFLOW_PORT": "5000", "SERVING_PORT": "5001", **dotenv_values(ROOT / ".env"), **os.environ}
    os.umask(0o077)  # the accounts' database, and what else is written here, is for this user alone
    services = on_this_machine(compose(values), ROOT)
    tracking = services["mlflow"]
    tracking["command"] = [
        word.replace(POSTGRESQL, "sqlite:///mlflow.db").replace(f"{ROOT}/artifacts", "mlartifacts")
        for word in tracking["command"]
    ]
    # Versions that were registered without the server have their models in folders of this machine, which the model
    # server takes from a registry on this machine alone.
    services["serving"]["environment"]["MLFLOW_REGISTRY_URI"] = "sqlite:///mlflow.db"
    with suppress(KeyboardInterrupt), tempfile.NamedTemporaryFile("w", suffix=".ini") as accounts:
        configuration = Path(tracking["environment"]["MLFLOW_AUTH_CONFIG_PATH"]).read_text()
        accounts.write(configuration.replace(POSTGRESQL, "sqlite:///basic_auth.db"))
        accounts.flush()
        tracking["environment"]["MLFLOW_AUTH_CONFIG_PATH"] = accounts.name
        with running(services, "mlflow", "accounts", "serving") as processes:
            address = "http://127.0.0.1:"
            print(f"Tracking server: {address}{values['MLFLOW_PORT']}, user admin, password in secrets/admin_password")
            print(f"Model server:    {address}{values['SERVING_PORT']}. Ctrl-C stops both.", flush=True)
            while all(processes[name].poll() is None for name in ("mlflow", "serving")):
                time.sleep(0.5)
            sys.exit("One of the servers ended, so the other is stopped too.")


if __name__ == "__main__":
    main()
