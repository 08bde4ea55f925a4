"""A student in a repository of the Hugging Face hub."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from kdbench.errors import KdbenchError, first_line

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def check_name(repository: str) -> None:
    """Raise KdbenchError for what is no OWNER/NAME, and where the hub's client is not here."""
    if not REPOSITORY.fullmatch(repository):
        raise KdbenchError(f"a repository of the hub is written OWNER/NAME, got {repository!r}")
    try:
        importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise KdbenchError("--push needs huggingface_hub; type `pip install 'kdbench[hub]'`") from error


def push(folder: Path, repository: str, message: str, private: bool) -> str:
    """Upload the folder as a commit, creating the repository where there is none; returns its address.

    Raises KdbenchError where the hub refuses it or cannot be reached.
    """
    client = importlib.import_module("huggingface_hub").HfApi()
    try:
        address = client.create_repo(repository, private=private, exist_ok=True)
        client.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except Exception as error:  # a hub that cannot be reached fails in many ways
        raise KdbenchError(
            f"the student could not be pushed to {repository}: {first_line(error).rstrip('.:')}; log in with `hf auth "
            "login` and a token that may write there, or write it to a folder and upload that"
        ) from error
    return str(address)
