"""What is shown of text that may carry a password: the one place that hides it, in every spelling."""

from __future__ import annotations

import re

STARS = "***"
NAMED = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
"""A variable without a default, whose name may be shown."""

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
USER = re.compile(r"(?P<user>[^:]*:)(?P<secret>.*)@", re.DOTALL)
"""What may stand before a place: a user, then a password up to the last @. An unencoded / ? # @ or : is part of it."""

BARE = re.compile(r"(?P<user>(?:[^:]*/)?[^\s:/]*:)(?P<secret>.*)@", re.DOTALL)
"""The same where no scheme is before it, and the text may be a path, or have been made part of one."""

OPTION = re.compile(r"(?P<name>[?&;#\s][^=?&;#\s]*(?:pass|pwd|secret|token|auth|credential|access_key)[^=?&;#\s]*=)(?P<secret>.*)",
                    re.IGNORECASE | re.DOTALL)  # fmt: skip
"""An option that holds a secret; to the end of the text, since an unencoded & is part of it."""


SECRET = re.compile(r"pass|pwd|secret|token|credential|access[-_]key|account[-_]key", re.IGNORECASE)
"""In the name of a property: that its value is shown to nobody."""


def hidden_property(name: str, value: str) -> str:
    """The value of a property without passwords in it; stars where its name says that it is one."""
    return _stars(value) if SECRET.search(name) else hidden(value)


def hidden(text: str) -> str:
    """The text with stars for each password in it: `scheme://user:password@place`, `user:password@place`, `?password=…`.

    Rather too much is hidden than too little. A variable that is the whole of a password is shown by its name.
    """
    scheme = SCHEME.match(text)
    start = scheme.end() if scheme else 0
    rest = text[start:]
    user, option = (USER if scheme else BARE).match(rest), OPTION.search(rest)
    end = ""
    if option is not None:
        rest, end = rest[: option.start()], f"{option['name']}{_stars(option['secret'])}"
    if user is not None and user.end() > len(rest):  # an @ of either: both are hidden
        rest = f"{user['user']}{STARS}" if len(user["user"]) < len(rest) else rest
    elif user is not None:
        rest = f"{user['user']}{_stars(user['secret'])}@{rest[user.end() :]}"
    return text[:start] + rest + end


def _stars(secret: str) -> str:
    return secret if not secret or NAMED.fullmatch(secret) else STARS
