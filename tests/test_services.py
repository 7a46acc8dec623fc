"""The services of the stack as they run: the same commands with the same environment as in docker-compose.yml.

There may be no Docker engine here, so they run as processes, on real PostgreSQL.
"""

import base64
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import PATIENCE, ROOT, free_port, wait_until
from test_stack import COMPOSE, SERVICES, given, kept

from stack import local
from stack.with_secrets import with_secrets

pytestmark = pytest.mark.postgres


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Stack:
    """The services as they run, and what to reach them by."""

    services: dict[str, Any]
    secrets: dict[str, str]
    port: int
    serving_port: int
    folder: Path
    database: dict[str, str]

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        user: str | None = "admin",
        password: str | None = None,
        **headers: str,
    ) -> Answer:
        """What the tracking server answers to a request whose path is sent as it is written."""
        if user:
            password = password or self.secrets[f"{user}_password"]
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        if isinstance(body, dict):
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            sent = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
        finally:
            connection.close()

    def api(self, method: str, path: str, body: object = None, user: str = "admin") -> Any:
        answer = self.ask(method, f"/api/2.0/mlflow/{path}", body, user)
        assert answer.status == 200, answer.body
        return answer.json()

    def run(self, name: str, *command: str, **environment: str) -> str:
        """Runs a command as the service of this name, and returns what it printed."""
        service = self.services[name]
        done = subprocess.run(
            [*service["entrypoint"], *command],
            cwd=ROOT,
            env=local.environment(service) | environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def postgresql(program: str) -> str:
    """The path of one of PostgreSQL's programs, which Debian keeps off the search path."""
    found = shutil.which(program)
    if not found:
        versions = sorted(Path("/usr/lib/postgresql").glob("*"), key=lambda path: float(path.name))
        found = str(versions[-1] / "bin" / program) if versions else None
    return found or pytest.skip(f"PostgreSQL's {program} is not installed")


@contextmanager
def database(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A new PostgreSQL made from the service's environment, as its image does; gives the client's variables."""
    # PostgreSQL refuses to run as root; the user that its package made runs it then.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        password = folder / "password"
        password.write_text(Path(environment["POSTGRES_PASSWORD_FILE"]).read_text().strip())
        if user:
            for path in (folder, password):
                shutil.chown(path, "postgres", "postgres")
        data, port = str(folder / "data"), str(free_port())
        subprocess.run(
            [
                *[postgresql("initdb"), "--no-sync", f"--pgdata={data}", f"--pwfile={password}"],
                *[f"--username={environment['POSTGRES_USER']}", *environment["POSTGRES_INITDB_ARGS"].split()],
            ],
            cwd=folder,
            check=True,
            capture_output=True,
            **user,
        )
        server = subprocess.Popen(
            [postgresql("postgres"), "-D", data, "-p", port, "-k", name, "-h", "127.0.0.1", "-F"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **user,
        )
        try:
            reached = {"PGHOST": "127.0.0.1", "PGPORT": port}
            superuser = {"PGUSER": environment["POSTGRES_USER"], "PGPASSWORD": password.read_text()}
            client = os.environ | environment | reached | superuser
            ready = [postgresql("pg_isready"), *SERVICES["postgres"]["healthcheck"]["test"][2:]]

            def is_ready() -> bool:
                return subprocess.run(ready, env=os.environ | reached, capture_output=True, check=False).returncode == 0

            wait_until(is_ready)
            # As the image does with what is mounted there.
            (made_by,) = SERVICES["postgres"]["configs"]
            assert made_by["target"].startswith("/docker-entrypoint-initdb.d/")
            script = ROOT / COMPOSE["configs"][made_by["source"]]["file"]
            run = [postgresql("psql"), "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-d", "postgres", "-f", str(script)]
            subprocess.run(run, env=client, check=True, capture_output=True)
            yield reached
        finally:
            local.stop(server)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Database, tracking server and accounts, started from nothing as docker-compose.yml says."""
    folder = tmp_path_factory.mktemp("stack")
    port, serving_port = free_port(), free_port()
    filled = local.compose(given(folder, MLFLOW_PORT=str(port), SERVING_PORT=str(serving_port)))
    services = local.on_this_machine(filled, folder)
    services["trainer"]["environment"]["XLA_FLAGS"] = os.environ["XLA_FLAGS"]
    (folder / "outside.txt").write_text("nobody may read this")
    with database(services["postgres"]["environment"]) as reached:
        services["mlflow"]["environment"] |= reached
        with local.running(services, "mlflow", "accounts", logs=folder) as processes:
            assert processes["accounts"].wait(PATIENCE) == 0, (folder / "accounts.log").read_text()
            yield Stack(services, kept(folder), port, serving_port, folder, reached)


@pytest.fixture(scope="module")
def trained(stack: Stack) -> dict[str, Any]:
    """The run of RMSprop that the trainer left on the tracking server."""
    stack.run("trainer", *SERVICES["trainer"]["command"], "--dataset=digits", "--epochs=2", "--variant=RMSprop")
    experiment = stack.api("GET", "experiments/get-by-name?experiment_name=mlplab")["experiment"]["experiment_id"]
    runs = stack.api("POST", "runs/search", {"experiment_ids": [experiment]})["runs"]
    (child,) = [run for run in runs if run["info"]["run_name"].startswith("RMSprop")]
    return dict(child)


@pytest.fixture(scope="module")
def registered(stack: Stack, trained: dict[str, Any]) -> dict[str, Any]:
    """The version of the model that is the champion."""
    stack.run("trainer", "python", "-m", "mlplab", "register", "--dataset=digits")
    return dict(stack.api("GET", "registered-models/alias?name=mnist-mlp&alias=champion")["model_version"])


def test_artifacts_go_through_the_tracking_server(stack: Stack, trained: dict[str, Any]) -> None:
    """What a training leaves is in the tracking server's volume, and the trainer knows it by the server alone."""
    assert trained["info"]["status"] == "FINISHED"
    assert trained["info"]["artifact_uri"].startswith("mlflow-artifacts:/")
    assert list((stack.folder / "artifacts").rglob("history.csv"))


def test_what_was_trained_is_registered_and_served(stack: Stack, registered: dict[str, Any]) -> None:
    """The model server takes the champion from the tracking server with an account of its own, and predicts."""
    assert registered["source"].startswith(("models:/", "mlflow-artifacts:/"))
    with local.running(stack.services, "serving", logs=stack.folder) as processes:
        local.wait_until_healthy("serving", stack.services["serving"], processes["serving"], PATIENCE)
        connection = http.client.HTTPConnection("127.0.0.1", stack.serving_port, timeout=PATIENCE)
        connection.request(
            "POST", "/invocations", json.dumps({"inputs": [[0] * 784, [255] * 784]}),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        assert len(json.loads(body)["predictions"]) == 2


# --------------------------------------------------------------------------------------------------------- credentials

PUBLIC = {"/health", "/version", "/static-files", "/favicon.ico"}
"""What is answered without credentials, besides the server's capabilities (server-info)."""


def test_accounts_are_in_postgresql_and_only_the_administrator_is_one(stack: Stack) -> None:
    """The first start makes three accounts in PostgreSQL; the trainer's and the model server's are ordinary ones, and
    so is the database's role that the tracking server has."""
    users = stack.api("GET", "users/list")["users"]
    assert {user["username"]: user["is_admin"] for user in users} == {"admin": True, "trainer": False, "serving": False}
    import psycopg2

    client = {"host": "127.0.0.1", "port": stack.database["PGPORT"], "user": "mlflow", "dbname": "mlflow"}
    with psycopg2.connect(**client, password=stack.secrets["database_password"]) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT username, password_hash FROM users")
        stored = dict(cursor.fetchall())
        cursor.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = 'mlflow'"
        )
        assert cursor.fetchall() == [(False, False, False, False)]
    assert set(stored) == {"admin", "trainer", "serving"}
    assert not set(stored.values()) & set(stack.secrets.values())
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(**client, password="mlflow")
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        psycopg2.connect(**client | {"dbname": "postgres"}, password=stack.secrets["database_password"])


def endpoints() -> list[tuple[str, str]]:
    """Every method and path that the tracking server knows, with something in place of its parameters."""
    import mlflow.server.auth.routes as accounts
    from fastapi.routing import APIRoute
    from mlflow.server import app
    from mlflow.server.fastapi_app import create_fastapi_app

    found = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    found |= {
        (method, route.path)
        for route in create_fastapi_app(app).routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    found |= {
        (method, path)
        for name, path in vars(accounts).items()
        if name.isupper() and isinstance(path, str) and path.startswith("/")
        for method in ("GET", "POST", "PATCH", "DELETE")
    }
    return sorted({(method, re.sub(r"<[^>]*>|\{[^}]*\}", "1", path)) for method, path in found})


@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")
def test_nothing_is_read_or_written_without_credentials(stack: Stack, trained: dict[str, Any]) -> None:
    """Of all the endpoints of API, UI and artifacts, none answers a request without credentials, or with wrong ones."""
    known = endpoints()
    assert len(known) > 300
    answered = {}
    for method, path in known:
        if path in PUBLIC or path.startswith("/static-files/") or path.endswith("/mlflow/server-info"):
            continue
        answer = stack.ask(method, path, {} if method != "GET" else None, user=None)
        if answer.status not in {401, 404, 405}:
            answered[method, path] = answer.status
    assert not answered
    artifact = f"{trained['info']['artifact_uri'].removeprefix('mlflow-artifacts:/')}/history.csv"
    run = trained["info"]["run_id"]
    for method, path in [
        ("GET", f"/api/2.0/mlflow-artifacts/artifacts/{artifact}"),
        ("GET", f"/ajax-api/2.0/mlflow-artifacts/artifacts/{artifact}"),
        ("GET", f"/get-artifact?path=history.csv&run_uuid={run}"),
        ("GET", f"/ajax-api/2.0/mlflow/runs/get?run_id={run}"),
        ("GET", "/"),
        ("POST", "/graphql"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/new.txt"),
        ("DELETE", f"/api/2.0/mlflow-artifacts/artifacts/{artifact}"),
    ]:
        assert stack.ask(method, path, user=None).status == 401, (method, path)
    assert stack.ask("GET", f"/api/2.0/mlflow-artifacts/artifacts/{artifact}").status == 200


@pytest.mark.parametrize(
    ("user", "password"),
    [("admin", "wrong"), ("admin", "password1234"), ("admin", "password"), ("admin", "admin"), ("nobody", "nothing")],
)
@pytest.mark.parametrize(
    "path", ["/api/2.0/mlflow/registered-models/search", "/api/2.0/mlflow-artifacts/artifacts/0/a.txt", "/"]
)
def test_a_wrong_password_is_refused(stack: Stack, user: str, password: str, path: str) -> None:
    """A wrong password, the one that MLflow once came with, and an unknown user are all refused."""
    assert stack.ask("GET", path, user=user, password=password).status == 401


def test_the_password_that_everybody_knows_does_not_start(stack: Stack, tmp_path: Path) -> None:
    """A first start with MLflow's old default password ends with a message that says so."""
    service = stack.services["mlflow"]
    environment = with_secrets(local.environment(service)) | {"MLFLOW_AUTH_ADMIN_PASSWORD": "password1234"}
    del environment["MLFLOW_AUTH_CONFIG_PATH"]
    command = [word.replace(local.POSTGRESQL, "sqlite:///mlflow.db") for word in service["command"]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Refusing to use the insecure default password" in done.stderr


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "EXPERIMENT"}),
        ("POST", "/api/2.0/mlflow/runs/set-tag", {"run_id": "RUN", "key": "a", "value": "b"}),
        ("POST", "/api/2.0/mlflow/runs/delete", {"run_id": "RUN"}),
        ("POST", "/api/2.0/mlflow/experiments/delete", {"experiment_id": "EXPERIMENT"}),
        ("POST", "/api/2.0/mlflow/registered-models/alias", {"name": "mnist-mlp", "alias": "champion", "version": "1"}),
        ("DELETE", "/api/2.0/mlflow/registered-models/delete", {"name": "mnist-mlp"}),
        ("DELETE", "/api/2.0/mlflow/model-versions/delete", {"name": "mnist-mlp", "version": "1"}),
        ("POST", "/api/2.0/mlflow/users/create", {"username": "mallory", "password": "mallory's password"}),
        ("PATCH", "/api/2.0/mlflow/users/update-admin", {"username": "serving", "is_admin": True}),
        ("PATCH", "/api/2.0/mlflow/users/update-password", {"username": "admin", "password": "a new password"}),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/EXPERIMENT/RUN/artifacts/new.txt", "new"),
        ("PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/EXPERIMENT/RUN/artifacts/new.txt", "new"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/./EXPERIMENT/RUN/artifacts/new.txt", "new"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/%2e/EXPERIMENT/RUN/artifacts/new.txt", "new"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/%252e/EXPERIMENT/RUN/artifacts/new.txt", "new"),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=RUN&path=new.txt", "new"),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/EXPERIMENT/RUN/artifacts/history.csv", None),
    ],
)
def test_the_model_server_changes_nothing(
    stack: Stack, trained: dict[str, Any], registered: dict[str, Any], method: str, path: str, body: Any
) -> None:
    """With the model server's account nothing of the trainer's or the administrator's can be changed."""

    def filled(text: str) -> str:
        return text.replace("EXPERIMENT", trained["info"]["experiment_id"]).replace("RUN", trained["info"]["run_id"])

    body = json.loads(filled(json.dumps(body))) if isinstance(body, dict) else body
    assert stack.ask(method, filled(path), body, user="serving").status == 403


# ------------------------------------------------------------------------------------------------------ Host and Origin


def test_the_hosts_that_are_named_are_answered(stack: Stack) -> None:
    """The server answers to its name among the containers and to this machine's at the published port."""
    for host in ("mlflow:5000", f"localhost:{stack.port}", f"127.0.0.1:{stack.port}"):
        assert stack.ask("GET", "/api/2.0/mlflow/registered-models/search", Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "mlflow:5001", "mlflow.evil.example:5000", "localhost", "10.0.0.1"]
)
@pytest.mark.parametrize(
    "path", ["/api/2.0/mlflow/registered-models/search", "/api/2.0/mlflow-artifacts/artifacts/0/a.txt", "/"]
)
def test_a_foreign_host_is_refused(stack: Stack, host: str, path: str) -> None:
    """A request that names another host is refused, right credentials or not."""
    assert stack.ask("GET", path, Host=host).status == 403


FOREIGN = ["https://evil.example", "http://mlflow:5000", "http://localhost.evil.example", "null"]
NEIGHBOUR = pytest.param(
    "http://localhost:1",
    marks=pytest.mark.xfail(
        strict=True, reason="MLflow 3.17 trusts every port of localhost, whatever origins are configured"
    ),
)


@pytest.mark.parametrize("origin", [*FOREIGN, NEIGHBOUR])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/2.0/mlflow/registered-models/create"),
        ("POST", "/ajax-api/2.0/mlflow/registered-models/create"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/origin.txt"),
    ],
)
def test_a_foreign_page_writes_nothing(stack: Stack, origin: str, method: str, path: str) -> None:
    """A page of another origin cannot write with the credentials that the browser holds."""
    assert stack.ask(method, path, {"name": f"from {origin} {path[:5]}"}, Origin=origin).status == 403


@pytest.mark.parametrize("origin", [*FOREIGN, NEIGHBOUR])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_foreign_page_reads_nothing(stack: Stack, origin: str, method: str) -> None:
    """A page of another origin is not allowed to see an answer."""
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    answer = stack.ask(method, "/api/2.0/mlflow/registered-models/search", Origin=origin, **preflight)
    assert "access-control-allow-origin" not in answer.headers


def test_the_own_origin_reads_and_writes(stack: Stack) -> None:
    """The UI at the published port may do what its user may."""
    own = f"http://localhost:{stack.port}"
    body = {"experiment_id": "0", "key": "origin", "value": "own"}
    answer = stack.ask("POST", "/ajax-api/2.0/mlflow/experiments/set-experiment-tag", body, Origin=own)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == own


# ------------------------------------------------------------------------------------------------ outside the artifacts

OUTSIDE = [
    "../outside.txt",
    "0/../../outside.txt",
    "%2e%2e/outside.txt",
    "%2e%2e%2foutside.txt",
    "..%2foutside.txt",
    "%252e%252e/outside.txt",
    "%252e%252e%252foutside.txt",
    "%25252e%25252e%25252foutside.txt",
    "./../outside.txt",
    "%00/../outside.txt",
    "/ABSOLUTE/outside.txt",
    "%2fABSOLUTE/outside.txt",
    "%252fABSOLUTE/outside.txt",
    "file:ABSOLUTE/outside.txt",
    "file:%2f%2fABSOLUTE/outside.txt",
]
ODD = ["..%5coutside.txt", "..;/outside.txt", "~/outside.txt"]
"""What leads out on other systems; here these are names."""


def outside(stack: Stack) -> dict[Path, bytes]:
    """The files beside the artifacts, the logs excepted, and what they hold."""
    files = (path for path in stack.folder.iterdir() if path.is_file() and path.suffix != ".log")
    return {path: path.read_bytes() for path in files}


def refused(answer: Answer) -> bool:
    """Whether the answer refuses, or sends the client from a path with // to the one with /, which leads inside."""
    return 400 <= answer.status < 500 or answer.status == 308


@pytest.mark.parametrize("path", [*OUTSIDE, *ODD])
@pytest.mark.parametrize("api", ["api", "ajax-api"])
def test_no_path_leads_out_of_the_artifacts(stack: Stack, path: str, api: str) -> None:
    """A path that leaves the artifacts, raw or encoded however often, reads, writes, deletes and lists nothing."""
    before = outside(stack)
    address, absolute = f"/{api}/2.0/mlflow-artifacts/artifacts", path.replace("ABSOLUTE", str(stack.folder))
    for method, target in [
        ("GET", f"{address}/{absolute}"),
        ("PUT", f"{address}/{absolute.replace('outside', 'written')}"),
        ("DELETE", f"{address}/{absolute}"),
    ]:
        answer = stack.ask(method, target, "written" if method == "PUT" else None)
        assert b"nobody may read this" not in answer.body
        assert refused(answer) or path in ODD, (method, target, answer)
    listed = stack.ask("GET", f"{address}?path={absolute.removesuffix('outside.txt')}")
    assert b"outside.txt" not in listed.body
    assert outside(stack) == before


@pytest.mark.parametrize("path", [*OUTSIDE, *ODD])
def test_no_path_leads_out_of_a_run_or_a_model(
    stack: Stack, trained: dict[str, Any], registered: dict[str, Any], path: str
) -> None:
    """Neither a run's nor a model's artifacts give what lies outside them, and none is written there."""
    before = outside(stack)
    run, version = trained["info"]["run_id"], f"name=mnist-mlp&version={registered['version']}"
    absolute = path.replace("ABSOLUTE", str(stack.folder))
    for method, target in [
        ("GET", f"/get-artifact?run_uuid={run}&path="),
        ("GET", f"/model-versions/get-artifact?{version}&path="),
        ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path="),
    ]:
        for up in ("", "../../../", "%2e%2e/%2e%2e/%2e%2e/"):
            answer = stack.ask(method, target + up + absolute, "written" if method == "POST" else None)
            assert b"nobody may read this" not in answer.body
            assert refused(answer) or path in ODD, (method, target, answer)
    assert outside(stack) == before


SOURCES = [
    "file:///etc",
    "/etc",
    "etc",
    "../../etc",
    "file:../../etc",
    "file://localhost/etc",
    "FOLDER",
    "mlflow-artifacts:/../../etc",
    "mlflow-artifacts:/%2e%2e/%2e%2e/etc",
    "mlflow-artifacts:/%252e%252e/%252e%252e/etc",
    "mlflow-artifacts:/0/elsewhere",
    "mlflow-artifacts://evil.example/0/model",
    "runs:/RUN/../../../etc",
    "runs:/0123456789abcdef0123456789abcdef/model",
    "models:/../../etc",
    "http://evil.example/api/2.0/mlflow-artifacts/artifacts/0/model",
    "http://evil.example/model",
    "s3://evil/model",
    "dbfs:/model",
    "ftp://evil.example/model",
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("run", [True, False], ids=["of a run", "of no run"])
def test_a_version_outside_the_artifacts_is_refused(
    stack: Stack, trained: dict[str, Any], registered: dict[str, Any], source: str, run: bool
) -> None:
    """No version is registered whose source is not within what the tracking server holds of the run or the model."""
    body = {"name": "mnist-mlp", "source": source.replace("FOLDER", str(stack.folder))}
    body["source"] = body["source"].replace("RUN", trained["info"]["run_id"])
    if run:
        body["run_id"] = trained["info"]["run_id"]
    answer = stack.ask("POST", "/api/2.0/mlflow/model-versions/create", body, user="trainer")
    assert answer.status >= 400, answer
    versions = stack.api("GET", "model-versions/search?filter=name%3D%27mnist-mlp%27")["model_versions"]
    assert [version["version"] for version in versions] == ["1"]


@pytest.fixture(scope="module")
def elsewhere(stack: Stack) -> str:
    """A run of the trainer's in an experiment that has its artifacts in the folder around the artifacts'."""
    body = {"name": "elsewhere", "artifact_location": str(stack.folder)}
    experiment = stack.api("POST", "experiments/create", body, user="trainer")["experiment_id"]
    run = stack.api("POST", "runs/create", {"experiment_id": experiment}, user="trainer")
    return str(run["run"]["info"]["run_id"])


@pytest.mark.parametrize(
    "path", ["outside.txt", "../../outside.txt", "%2e%2e/%2e%2e/outside.txt", "..%252f../outside.txt"]
)
def test_an_experiment_elsewhere_gives_nothing_that_is_there(stack: Stack, elsewhere: str, path: str) -> None:
    """An account that has an experiment's artifacts in a folder of the server's cannot read what is in that folder."""
    answer = stack.ask("GET", f"/get-artifact?run_uuid={elsewhere}&path={path}", user="trainer")
    assert 400 <= answer.status < 500, answer
    listed = stack.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={elsewhere}&path={path[:-11]}", user="trainer")
    assert b"outside.txt" not in listed.body


@pytest.mark.xfail(
    strict=True,
    reason="MLflow 3.17 writes an experiment's artifacts to any folder that an account names; in its container, which "
    "is read-only, the artifacts' volume is all there is to write to",
)
def test_nothing_is_written_elsewhere(stack: Stack, elsewhere: str) -> None:
    """An account cannot write outside the artifacts' folder by way of an experiment that is elsewhere."""
    target = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={elsewhere}&path=new.txt"
    assert 400 <= stack.ask("POST", target, "new", user="trainer").status < 500
