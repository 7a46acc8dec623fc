"""Makes the accounts of the trainer and the model server, or gives them the passwords that are set now."""

import os

from mlflow.exceptions import RestException
from mlflow.server import get_app_client

client = get_app_client("basic-auth", tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
for name in ("trainer", "serving"):
    password = os.environ[f"{name.upper()}_PASSWORD"]
    try:
        client.create_user(name, password)
    except RestException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_user_password(name, password)
