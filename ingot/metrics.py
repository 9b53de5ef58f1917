"""What a gateway does, as Prometheus text: read from its counters when it is asked for.

Nothing is counted for this: the parts of a server keep these figures anyway, so a request costs the
same whether or not somebody scrapes. Each server has a registry of its own, and two in a process
know nothing of one another. Counters begin at 0 with the server's start.

Called by ``ingot.server``, for hosts that embed it and for ``ingot.exporter``. README.md names
those to alert on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ingot import __version__
from ingot.errors import IngotError
from ingot.shipper.lifecycle import INDEXED, QUEUED, REFUSED, STORED
from ingot.shipper.shipper import Standing

if TYPE_CHECKING:
    from ingot.server import Server

SHIPPING: Final = {QUEUED: "queued", STORED: "stored", INDEXED: "confirmed", REFUSED: "refused"}

# Field of ``http.shared.Counters``, name, what it counts.
HTTP: Final = (
    ("connections_accepted", "http_connections", "Connections accepted"),
    ("connections_refused", "http_connections_refused", "Connections refused over the cap"),
    ("connections_displaced", "http_connections_displaced", "Idle ones closed for new ones"),
    ("accept_failures", "http_accept_failures", "Connections that could not be accepted"),
    ("requests", "http_requests", "Requests whose head was understood"),
    ("express", "http_express_requests", "Of these, answered by the express lane"),
    ("bad_requests", "http_bad_requests", "Requests refused before they were understood"),
    ("handler_errors", "http_handler_errors", "Requests that met a mistake of ours"),
    ("deadlines_missed", "http_deadlines_missed", "Connections closed for being too slow"),
    ("bytes_in", "http_received_bytes", "Bytes received from clients"),
    ("bytes_out", "http_sent_bytes", "Bytes sent to clients"),
)
# The same of ``segments.model.Statistics``.
SEGMENTS: Final = (
    ("commits", "log_commits", "Commits made durable in the log"),
    ("commit_bytes", "log_written_bytes", "Bytes that commits wrote to the log"),
    ("log_syncs", "log_syncs", "Syncs of log segments"),
    ("bodies", "body_chunks", "Chunks written to body segments"),
    ("body_bytes", "body_written_bytes", "Bytes written to body segments"),
    ("body_syncs", "body_syncs", "Syncs of body segments"),
    ("repeated", "repeated_frames", "Blocks not written because the open segment had them"),
    ("poisoned", "segments_poisoned", "Segments closed for good after a failed write or sync"),
    ("rotations", "segment_rotations", "Segments that followed a full one"),
    ("rotations_waited", "segment_rotations_waited", "Of these, not ready when needed"),
    ("sealed", "segments_sealed", "Segments closed in good order"),
    ("seal_failures", "segment_seal_failures", "Segments that could not be sealed"),
    ("merged", "index_merges", "Runs of the index that were merged"),
    ("rebuilt", "segment_indexes_rebuilt", "Segments indexed again"),
    ("units", "units_made", "Units made of log segments"),
    ("retired", "segments_retired", "Segments whose file was removed"),
    ("fetched", "cold_fetched_blocks", "Blocks of cold segments read from the network"),
    ("fetched_bytes", "cold_fetched_bytes", "Bytes of cold segments read from the network"),
    ("rejected", "cold_rejected_blocks", "Blocks that came with wrong bytes"),
    ("cache_hits", "cold_cache_hits", "Blocks of cold segments found in the cache on disk"),
    ("reads", "block_reads", "Blocks read from segment files"),
    ("reads_waited", "block_reads_waited", "Of these, the disk had to be waited for"),
    ("verified", "blocks_verified", "Blocks hashed at their first read"),
    ("corrupt", "blocks_corrupt", "Blocks found damaged in segment files"),
)


class Metrics:
    """Of one server, which has started."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._standing: Standing | None = None
        self._registry = CollectorRegistry(support_collectors_without_names=True)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def text(self) -> bytes:
        """All figures as of now, in the text format of version 0.0.4."""
        shipping = self._server.shipping
        if shipping is not None:
            try:
                self._standing = await shipping.shipper.standing()
            except (IngotError, OSError) as error:
                self._standing = None
                logging.getLogger("ingot.metrics").warning("shipping's figures: %s", error)
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        server = self._server
        yield _gauge("build_info", "The version that runs", {__version__: 1}, "version")
        if server.http is not None:
            counters = server.http.counters
            yield _gauge("http_connections_open", "Now", counters.connections_open)
            yield from _counters(counters, HTTP)
        yield from _counters(server.segments.statistics, SEGMENTS)
        yield from self._pipeline()
        yield from self._segments()
        if server.shipping is not None:
            yield from self._shipping()

    def _pipeline(self) -> Iterator[Metric]:
        pipeline, store, clock = self._server.pipeline, self._server.store, self._server.clock
        left = store.lease_until - clock.boottime()
        serving = pipeline.failed is None and left > 0
        yield _gauge("serving", "1 while requests are served, else 0", serving)
        yield _gauge("lease_remaining_seconds", "Until the lease must be renewed", max(0.0, left))
        yield _gauge(
            "registry_up", "0 while a swap cannot reach Postgres", not pipeline.registry_away
        )
        yield _counter("commits", "Commits: one sync and one swap of a batch", pipeline.commits)
        yield _counter(
            "mutations",
            "Mutations answered; by ingot_commits_total it gives the size of a batch",
            pipeline.mutations,
        )
        yield _gauge("mutations_waiting", "Mutations queued for a commit", pipeline.waiting)
        yield _gauge("newest_commit", "The newest commit's number", self._server.segments.sequence)
        yield _gauge("buckets", "Buckets", len(pipeline.tips))
        yield _gauge(
            "buckets_read_only",
            "Buckets that lack commits in the log",
            sum(bool(bucket.read_only) for bucket in list(pipeline.tips.values())),
        )

    def _segments(self) -> Iterator[Metric]:
        server, config = self._server, self._server.config
        count: Counter[tuple[str, ...]] = Counter()
        size: Counter[tuple[str, ...]] = Counter()
        for row in server.segments.rows():
            count[row.stream, row.state] += 1
            size[row.stream, row.state] += row.bytes
        labels = "stream", "state"
        yield _gauge("segments", "Segments by stream and state", count, *labels)
        yield _gauge("segments_bytes", "Their bytes, here or in the network", size, *labels)
        yield _gauge("local_bytes", "What segment files take here", server.segments.bytes_here())
        yield _gauge("local_limit_bytes", "Over it PUT gets 503", config.log_bytes_max)
        yield _gauge("full", "1 while PUT gets 503 for that limit", bool(server.store.full))
        yield _gauge("node_cache_bytes", "Tree nodes in memory", server.nodes.cache.bytes_used)
        yield _gauge("node_cache_limit_bytes", "Its budget", config.node_cache_bytes)
        used = server.store.summary_bytes
        yield _gauge("summary_cache_bytes", "What listings show of objects, in memory", used)
        yield _gauge("summary_cache_limit_bytes", "Its budget", config.summary_cache_bytes)

    def _shipping(self) -> Iterator[Metric]:
        shipping, standing = self._server.shipping, self._standing
        assert shipping is not None
        shipper, newest = shipping.shipper, self._server.segments.sequence
        yield _gauge("warm_limit_bytes", "Confirmed files go over it", shipping.warm_bytes)
        yield _gauge(
            "ship_running", "0 where shipping has ended", shipping.running and not shipper.failed
        )
        yield _gauge("ship_watermark_commit", "Forge has all up to it", shipper.watermark)
        breakers = {name: state.value != "closed" for name, state in shipping.breakers().items()}
        yield _gauge(
            "forge_breaker_open", "1 while a service that fails is left alone", breakers, "service"
        )
        if standing is None:
            return
        files = {SHIPPING[state]: standing.files.get(state, 0) for state in SHIPPING}
        sizes = {SHIPPING[state]: standing.bytes.get(state, 0) for state in SHIPPING}
        yield _gauge("ship_files", "Units and bodies by their state at Forge", files, "state")
        yield _gauge("ship_bytes", "Their bytes", sizes, "state")
        yield _gauge("ship_problems", "What holds something up", len(standing.problems))
        age = 0.0
        if standing.oldest_ms is not None:
            age = max(0.0, (self._server.clock.now_ms() - standing.oldest_ms) / 1000)
        elif newest > standing.watermark:
            age = float("nan")  # its record cannot be read; a problem says so
        yield _gauge("ship_oldest_commit_age_seconds", "Of the oldest one that Forge lacks", age)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"ingot_{name}", text, value=value)


def _counters(source: object, table: Iterable[tuple[str, str, str]]) -> Iterator[Metric]:
    for field, name, text in table:
        yield _counter(name, text, getattr(source, field))


Values = Mapping[str, float] | Mapping[tuple[str, ...], float]


def _gauge(name: str, text: str, value: float | Values, *labels: str) -> Metric:
    """One value, or one for each combination of labels."""
    family = GaugeMetricFamily(f"ingot_{name}", text, labels=labels)
    if isinstance(value, Mapping):
        for key, number in value.items():
            family.add_metric([key] if isinstance(key, str) else list(key), number)
    else:
        family.add_metric([], value)
    return family
