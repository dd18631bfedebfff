"""What a monitor tells its user, each thing once."""

from fpstab.callbacks._lightning import log


class Notices:
    """Warnings through Lightning's logger, never repeated. To be used on the first process."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def once(self, message: str) -> None:
        """Say it, if it has not been said."""
        if message and message not in self._said:
            self._said.add(message)
            log.warning(message)
