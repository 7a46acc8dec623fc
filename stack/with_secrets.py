"""`python with_secrets.py COMMAND …`: runs a command that reads its secrets from its environment.

A variable such as NAME_PASSWORD_FILE, the path of a file that holds the secret, becomes NAME_PASSWORD with what is in
it, for the command's process alone.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

NAME = re.compile(r"(\w*(?:PASSWORD|SECRET|TOKEN|KEY))_FILE")


def with_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment with the content of secrets in place of their files' paths.

    Raises:
        SystemExit: a file is missing, cannot be read, or is empty.
    """
    found = dict(environment)
    for name in filter(NAME.fullmatch, environment):
        path = Path(found.pop(name))
        try:
            secret = path.read_text().strip()
        except (OSError, ValueError) as error:
            raise SystemExit(f"the secret {path} of {name} cannot be read ({error}); make it: make secrets") from None
        if not secret:
            raise SystemExit(f"the secret {path} of {name} is empty; make it anew: rm {path}; make secrets")
        found[name.removesuffix("_FILE")] = secret
    return found


if __name__ == "__main__":
    os.execvpe(sys.argv[1], sys.argv[1:], with_secrets(os.environ))
