"""Telling others of a decision: a command, or an address."""

import shlex
import subprocess

from maml_jax.errors import mask_secrets

LIMIT = 30.0
"""Seconds that a command or an address may take."""


def call_command(command: str | None, kind: str, content: str) -> list[str]:
    """Run a command, without a shell, with JSON on its input; return what went wrong.

    Args:
        command: words, quoted as in a shell; `{kind}` stands for `signal` or `alert`. None does
            nothing.
        kind: of the event.
        content: JSON.
    """
    if command is None:
        return []
    try:
        words = [word.replace("{kind}", kind) for word in shlex.split(command)]
        subprocess.run(words, input=content, text=True, timeout=LIMIT, check=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [f"--on-signal: {mask_secrets(str(error))}"]
    return []


def call_webhook(address: str | None, content: str) -> list[str]:
    """Post JSON to an address; return what went wrong. None: nothing."""
    if address is None:
        return []
    import requests

    try:
        headers = {"Content-Type": "application/json"}
        reply = requests.post(address, data=content.encode(), headers=headers, timeout=LIMIT)
        reply.raise_for_status()
    except requests.RequestException as error:
        return [f"--webhook: {mask_secrets(str(error))}"]
    return []
