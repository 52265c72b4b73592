"""Default values that the options of ``simulate-fleet`` and its work share."""

from __future__ import annotations

from typing import Final

#: First log-ins a second, unless --ramp says otherwise.
LOG_INS: Final = 50
#: Where a script leaves the password of --user.
PASSWORD_VARIABLE: Final = "WAZUH_COMMS_ENROLLMENT_PASSWORD"  # noqa: S105 -- its name
