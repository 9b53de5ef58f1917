"""Who a client is on the Forge network: its key, its space, and what it was given rights to.

The *agent* is the key that signs what the client asks for. The *space* is where its blobs are kept;
the space's key gives the agent a right by a delegation, directly or through others. A host may make
an Identity of its own; ``keystore`` keeps one in files. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingot.errors import ConfigError
from ingot.forge import chain
from ingot.forge.keys import Signs
from ingot.forge.token import Delegation


@dataclass(frozen=True, slots=True)
class Identity:
    """``space`` is a DID; ``delegations`` are all that may stand in a chain from it to the agent,
    in any order."""

    agent: Signs
    space: str
    delegations: Sequence[Delegation] = ()

    def proofs(
        self,
        command: str,
        now: int,
        subject: str | None = None,
        arguments: Mapping[str, object] | None = None,
    ) -> list[Delegation]:
        """The chain, root first, by which the agent may use ``command`` on the subject, which is
        the space where none is given; ConfigError when there is none at ``now`` (Unix seconds)."""
        about = self.space if subject is None else subject
        found = chain.find(
            self.delegations,
            issuer=self.agent.did,
            subject=about,
            command=command,
            now=now,
            arguments=arguments,
        )
        if found is None:
            raise ConfigError(
                f"nothing that is valid now lets {self.agent.did} use {command} on {about}: have "
                "its owner delegate that, and import the delegation with 'ingot space import'"
            )
        return found
