"""The bounds of one HTTP server; defaults are those of ``ingot.limits``, tests shrink them."""

from __future__ import annotations

from dataclasses import dataclass

from ingot import limits


@dataclass(frozen=True, slots=True)
class HttpLimits:
    connections_max: int = limits.CONNECTIONS_MAX
    refusals_max: int = limits.REFUSALS_MAX
    header_bytes_max: int = limits.HEADER_BYTES_MAX
    header_count_max: int = limits.HEADER_COUNT_MAX
    header_deadline_s: float = limits.HEADER_DEADLINE_S
    idle_deadline_s: float = limits.IDLE_DEADLINE_S
    body_stall_s: float = limits.BODY_STALL_S
    body_rate_min: int = limits.BODY_RATE_MIN
    send_stall_s: float = limits.SEND_STALL_S
    drain_bytes_max: int = limits.DRAIN_BYTES_MAX
    drain_deadline_s: float = limits.DRAIN_DEADLINE_S
    linger_deadline_s: float = limits.LINGER_DEADLINE_S
    linger_stall_s: float = limits.LINGER_STALL_S
    handshake_deadline_s: float = limits.HANDSHAKE_DEADLINE_S

    @property
    def tick_s(self) -> float:
        """How often deadlines are looked at: a quarter of the shortest, at most a second."""
        shortest = min(
            self.header_deadline_s,
            self.idle_deadline_s,
            self.body_stall_s,
            self.send_stall_s,
            self.drain_deadline_s,
            self.linger_deadline_s,
            self.linger_stall_s,
            self.handshake_deadline_s,
        )
        return min(1.0, shortest / 4)
