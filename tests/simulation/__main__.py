"""``python -m tests.simulation``; see ``scripts/simulate``."""

from tests.simulation.determinism import install

install()

from tests.simulation.command import main  # noqa: E402  # the project comes after

raise SystemExit(main())
