"""Stub."""


def new_key() -> str:
    """An agent's key: 32 letters and digits."""
    raise NotImplementedError


def hash_key(key: str) -> str:
    """As agents' keys are stored: base64(salt of 16 bytes + PBKDF2-HMAC-SHA256(key, salt, 100 000 rounds)). Blocks for ~12 ms."""
    raise NotImplementedError


def hash_password(password: str) -> str:
    """An entry of ``enrollment.users``, in the same form."""
    return hash_key(password)


def key_matches(key: str, stored: str) -> bool:
    """In constant time; False, too, for a stored hash that isn't one. Blocks for ~12 ms."""
    raise NotImplementedError
