"""Having a service provide for a space: before that it takes none of its bytes.

A space is a key that anybody can make, so an upload service stores for those only that an account
of its own has vouched for (``/provider/add``, in the name of the account). An account is a
did:mailto or did:plc; it gets a plan from the service, and lends its name by a delegation.
"""

from __future__ import annotations

from typing import Final

from ingot.errors import ConfigError
from ingot.forge import values
from ingot.forge.errors import BadAnswer, Malformed, Refused
from ingot.forge.invoker import Invoker, Service

# The service's names for what a person has to set right, and how.
REMEDIES: Final = {
    "AccountPlanMissing": "choose a plan for the account with the service, then repeat this",
    "InvalidAccount": "the service knows no such account: sign in there first",
    "ProviderNotAllowed": "forge_upload_did is not the DID that the service provides under",
}


class SpaceClient:
    """About the identity's space, at its upload service."""

    def __init__(self, ask: Invoker, service: Service) -> None:
        self._ask, self._service = ask, service

    async def providers(self) -> list[str]:
        """The DIDs of those who provide for the space; empty where nobody does."""
        try:
            reply = await self._ask.ask(self._service, "/space/info", {})
        except Refused as error:
            if error.name == "UnknownSpace":
                return []
            raise
        try:
            found = values.take(reply.ok, list, "providers")
            return [values.take(one, str) for one in found]
        except Malformed as error:
            raise BadAnswer(self._service.url, f"/space/info: {error}") from error

    async def provision(self, account: str) -> None:
        """Have the service provide for the space, in the name of ``account`` (a DID). ConfigError
        where the account has not delegated that to the agent, or the service refuses it."""
        arguments = {"consumer": self._ask.identity.space, "provider": self._service.did}
        try:
            await self._ask.ask(self._service, "/provider/add", arguments, subject=account)
        except Refused as error:
            remedy = REMEDIES.get(error.name)
            raise ConfigError(
                f"{self._service.did} does not provide for the space: {error}"
                + (f"; {remedy}" if remedy else "")
            ) from error
