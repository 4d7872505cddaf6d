"""How a dead letter's record is mended before it is published again: some fields set, or a command of the user's."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from streams.errors import ConfigError

__all__ = ["Fix", "NotMended", "as_object", "mend_with_command", "parse_fields", "set_fields"]

Fix = Callable[[bytes], Awaitable[bytes]]
"""The mended record of a record. Raises NotMended for one to be left alone."""

_LONGEST_COMPLAINT = 500


class NotMended(Exception):
    """The fix refused a record; the message is its reason."""


def as_object(value: bytes) -> dict[str, msgspec.Raw] | None:
    """The fields of a record that is a JSON object, each as it is written; None for any other.

    >>> bytes(as_object(b'{"rating":4.50}')["rating"]), as_object(b"[1]")
    (b'4.50', None)
    """
    try:
        return msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def parse_fields(assignments: Sequence[str]) -> dict[str, msgspec.Raw]:
    """``FIELD=VALUE`` each, VALUE in JSON. Raises ConfigError.

    >>> bytes(parse_fields(["rating=4.5"])["rating"])
    b'4.5'
    """
    fields = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not name or not separator:
            raise ConfigError(f"--set: expected FIELD=VALUE, such as rating=3.5, found {assignment!r}")
        try:
            msgspec.json.decode(value.encode())
        except (msgspec.DecodeError, UnicodeEncodeError):
            raise ConfigError(
                f"--set {name}: expected a JSON value after the =, found {value!r}; text needs its quotes, as in "
                f"--set '{name}=\"text\"'"
            ) from None
        fields[name] = msgspec.Raw(value.encode())
    return fields


def set_fields(fields: Mapping[str, msgspec.Raw]) -> Fix:
    """A fix that gives each record these fields. What is no JSON object has none, and stays as it is."""

    async def mend(value: bytes) -> bytes:
        record = as_object(value)
        return value if record is None else msgspec.json.encode({**record, **fields})

    return mend


def mend_with_command(command: str) -> Fix:
    """A fix that starts ``command`` for each record, which reads the record and prints the mended one.

    The command is split as a shell would, and run without one. Raises ConfigError where there is no such program.
    """
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"--exec: expected a command line, found {command!r} ({error})") from None
    if not arguments or shutil.which(arguments[0]) is None:
        raise ConfigError(f"--exec: expected a program that can be run, found {command!r}; is it on the PATH?")

    async def mend(value: bytes) -> bytes:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            mended, complaint = await process.communicate(value)
        finally:
            if process.returncode is None:  # Ctrl-C
                process.kill()
                await process.wait()
        if process.returncode:
            said = complaint.decode(errors="replace").strip()[:_LONGEST_COMPLAINT]
            raise NotMended(said or f"{arguments[0]}: exit status {process.returncode}")
        return mended.removesuffix(b"\n")

    return mend
