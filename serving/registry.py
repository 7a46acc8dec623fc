"""The MLflow registry, asked for the few things that a server needs: a version, its tags, its files.

By its REST interface, or, where the store is a sqlite file on this machine, by that file, which is only read. MLflow's
own client takes five times the memory of the rest of the server, and two seconds to start.
"""

import base64
import json
import os
import re
import sqlite3
import ssl
import stat
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.limits import RefusedError

SECONDS, MOST_BYTES, MOST_SAID = 10.0, 512 * 2**20, 4 * 2**20
"""For an answer of the registry; of a file; of what else it says."""

FILE = re.compile(r"(?:[\w-][\w. -]*/){0,4}[\w-][\w. -]*")
"""A path within a version."""


class AbsentError(Exception):
    """There is no such model, alias or version."""


@dataclass(frozen=True)
class Reference:
    """What a `models:/name@alias` or `models:/name/3` points to."""

    uri: str
    name: str
    alias: str | None
    number: str | None

    @classmethod
    def parse(cls, uri: str) -> "Reference":
        """Reads the URI.

        Raises:
            ValueError: it is of another form.
        """
        found = re.fullmatch(r"models:/([^/@:]+)(?:@([\w-]+)|/(\d+))", uri)
        if not found:
            raise ValueError(f"the model is {uri!r}; legal: models:/name@alias or models:/name/version.")
        return cls(uri, *found.groups())


@dataclass(frozen=True)
class Registered:
    """A version as the registry has it; `place` is where its files are."""

    number: str
    created: int
    place: str
    tags: Mapping[str, str]


class Registry:
    """The registry at MLFLOW_REGISTRY_URI, else MLFLOW_TRACKING_URI, and the files that its versions name.

    Raises:
        ValueError: it is at no address that is known here.
    """

    def __init__(self) -> None:
        tracking = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        uri = os.environ.get("MLFLOW_REGISTRY_URI") or tracking
        self._server = _Server(tracking) if tracking.startswith(("http://", "https://")) else None
        self._local = uri.startswith("sqlite:///")
        self._resolve: Callable[[Reference], Registered]
        if self._local:
            self._resolve = _Sqlite(uri).resolve
        elif uri.startswith(("http://", "https://")):
            self._resolve = _Server(uri).resolve
        else:
            kind = uri.partition(":")[0]
            raise ValueError(f"the registry is at {kind}:…; legal: http://…, https://… or sqlite:///….")

    def resolve(self, reference: Reference) -> Registered:
        """The version that a reference points to now.

        Raises:
            AbsentError: there is none.
            OSError: the registry does not answer.
        """
        return self._resolve(reference)

    def read(self, version: Registered, path: str) -> bytes:
        """A file of a version.

        Raises:
            RefusedError: it lies where no file of a version may lie.
            OSError: it is not to be had.
        """
        if not FILE.fullmatch(path):
            raise RefusedError("it names a file by a path that none may have")
        kind = urllib.parse.urlsplit(version.place)
        if kind.scheme == "mlflow-artifacts" and self._server:
            if kind.netloc and kind.netloc != urllib.parse.urlsplit(self._server.base).netloc:
                raise RefusedError("its files are on another server than the registry's")
            return self._server.artifact(f"{kind.path}/{path}")
        if kind.scheme in ("", "file"):
            if not self._local:
                # A remote registry that names a path on this machine has not stored a model there.
                raise RefusedError("its source is a local path, but the registry is not on this machine")
            return _file(Path(urllib.request.url2pathname(kind.path) if kind.scheme else version.place), path)
        raise RefusedError(f"its files are at {kind.scheme[:20]}:…; legal: those that the tracking server serves")


def _file(folder: Path, path: str) -> bytes:
    """A file below a folder: no link, nor below one, and no device."""
    place = folder / path
    if place.resolve() != folder.resolve() / path:
        raise RefusedError("it has a link in the place of a file")
    with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
            raise RefusedError("it has something else in the place of a file, or one that is too large")
        return file.read(MOST_BYTES)


class _Sqlite:
    """A store that is a file on this machine."""

    def __init__(self, uri: str) -> None:
        path = urllib.parse.unquote(uri.removeprefix("sqlite:///").partition("?")[0])
        self._address = f"file:{urllib.parse.quote(str(Path(path).resolve()))}?mode=ro"

    def resolve(self, reference: Reference) -> Registered:
        with closing(sqlite3.connect(self._address, uri=True, timeout=SECONDS)) as store:

            def one(query: str, *values: Any) -> Any:
                return store.execute(query, values).fetchone()

            try:
                number = reference.number
                if reference.alias:
                    alias = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
                    (number,) = one(alias, reference.name, reference.alias) or (None,)
                found = number and one(
                    "SELECT version, creation_time, coalesce(storage_location, source) FROM model_versions "
                    "WHERE name = ? AND version = ? AND coalesce(current_stage, '') != 'Deleted_Internal'",
                    reference.name,
                    int(number),
                )
                if not found:
                    raise AbsentError
                tags = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"
                told = dict(store.execute(tags, (reference.name, int(found[0]))).fetchall())
                place = str(found[2])
                if place.startswith("models:/m-"):
                    model = place.removeprefix("models:/")
                    (place,) = one("SELECT artifact_location FROM logged_models WHERE model_id = ?", model) or ("",)
            except sqlite3.Error as error:
                raise OSError(f"the store cannot be read: {error}") from error
        return Registered(str(found[0]), int(found[1]), place, told)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The credentials are for one server."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Server:
    """A tracking server."""

    def __init__(self, uri: str) -> None:
        parts = urllib.parse.urlsplit(uri)
        self.base = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        user, password = parts.username, parts.password
        self._user = user and (urllib.parse.unquote(user), urllib.parse.unquote(password or ""))
        context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
        if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects())

    def resolve(self, reference: Reference) -> Registered:
        if reference.alias:
            found = self._ask("registered-models/alias", name=reference.name, alias=reference.alias)
        else:
            found = self._ask("model-versions/get", name=reference.name, version=reference.number or "")
        version = found["model_version"]
        number = str(version["version"])
        place = self._ask("model-versions/get-download-uri", name=reference.name, version=number)["artifact_uri"]
        if place.startswith("models:/m-"):
            model = urllib.parse.quote(place.removeprefix("models:/"), safe="")
            place = self._ask(f"logged-models/{model}")["model"]["info"]["artifact_uri"]
        tags = {str(tag["key"]): str(tag.get("value", "")) for tag in version.get("tags", [])}
        return Registered(number, int(version["creation_timestamp"]), str(place), tags)

    def artifact(self, path: str) -> bytes:
        return self._get(f"/api/2.0/mlflow-artifacts/artifacts/{urllib.parse.quote(path.lstrip('/'))}", MOST_BYTES)

    def _ask(self, what: str, **query: str) -> Any:
        try:
            return json.loads(self._get(f"/api/2.0/mlflow/{what}?{urllib.parse.urlencode(query)}", MOST_SAID))
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(MOST_SAID)
            absent = (b"RESOURCE_DOES_NOT_EXIST", b"INVALID_PARAMETER_VALUE")  # MLflow says this of an unknown alias
            if error.code in (400, 404) and any(code in said for code in absent):
                raise AbsentError from None
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OSError("the registry answers otherwise than MLflow does") from error

    def _get(self, path: str, most: int) -> bytes:
        request = urllib.request.Request(self.base + path, headers=self._credentials())
        with self._opener.open(request, timeout=SECONDS) as answer:
            content: bytes = answer.read(most + 1)
        if len(content) > most:
            raise RefusedError("one of its files is too large")
        return content

    def _credentials(self) -> dict[str, str]:
        """Read anew each time: a secret that is a file may change."""
        user = self._user or (secret("MLFLOW_TRACKING_USERNAME"), secret("MLFLOW_TRACKING_PASSWORD"))
        if user[0]:
            return {"Authorization": "Basic " + base64.b64encode(":".join(user).encode()).decode()}
        token = secret("MLFLOW_TRACKING_TOKEN")
        return {"Authorization": f"Bearer {token}"} if token else {}


def secret(name: str) -> str:
    """An environment variable, or what the file holds whose path the variable `name`_FILE has."""
    path = os.environ.get(f"{name}_FILE")
    return Path(path).read_text().strip() if path else os.environ.get(name, "")
