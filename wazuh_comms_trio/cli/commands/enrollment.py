"""``wazuh-comms enrollment``: the users that may enrol agents."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import Failure


def add_parser(parent: Group) -> None:
    enrollment = parent.group("enrollment", help="the users who may enrol agents")
    passwd = enrollment.command(
        "passwd",
        _passwd,
        help="print the entry of a user for enrollment.users",
        description="Asks for a password on a terminal, else reads a line from stdin, and prints the user's entry for "
        "communications_api.enrollment.users. Nothing is stored.",
    )
    passwd.add_argument("user", metavar="USER", type=_user)


def _user(word: str) -> str:
    """A user's name, without a colon: HTTP Basic ends the name at the first one."""
    if ":" in types.text(word):
        raise ArgumentTypeError("a user's name has no colon")
    return word


def _passwd(arguments: Namespace) -> int:
    from wazuh_comms_trio.services.authentication.secret_hashes import hash_key

    password_hash = hash_key(read_password())
    if arguments.json:
        from wazuh_comms_trio.cli.output import Output

        Output(as_json=True).document({"user": arguments.user, "hash": password_hash}, "")
        return 0
    import yaml

    print(yaml.safe_dump({arguments.user: password_hash}, allow_unicode=True, width=1000).strip())
    return 0


def read_password(*, twice: bool = True) -> str:
    """A password, asked for on a terminal, else a line of stdin. Raises ``Failure``."""
    if sys.stdin is None:
        raise Failure("no password was given")
    if sys.stdin.isatty():
        import getpass

        try:
            password = getpass.getpass("Password: ")
            again = getpass.getpass("Again: ") if password and twice else password
        except EOFError:
            raise Failure("no password was given") from None
        if again != password:
            raise Failure("the two passwords differ")
    else:
        try:
            password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise Failure("the password isn't UTF-8") from None
    if not password:
        raise Failure("no password was given")
    if "\0" in password:
        raise Failure("a password has no NUL")
    return password
