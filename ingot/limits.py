"""Every bound of ingot in one place, and how the bounds relate.

A queue, cache, wait or retry without a number here is a bug. Sizes are bytes, times seconds, unless
the name says otherwise.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

# -- keys and the tree (mst.md section 14) ------------------------------------------------------
KEY_BYTES_MAX: Final = 1024  # an S3 key, in UTF-8
TREE_KEY_BYTES_MAX: Final = KEY_BYTES_MAX + 64  # the uploads tree appends separators and ids
NODE_ENTRIES_MAX: Final = 8192  # honest trees stay below 70
NODE_BYTES_WRITE_MAX: Final = 1 * MIB
NODE_BYTES_READ_MAX: Final = 2 * MIB
KEY_LAYER_WRITE_MAX: Final = 24  # an honest key gets here with chance 1e-15
KEY_LAYER_READ_MAX: Final = 128
NODE_CACHE_BYTES: Final = 192 * MIB  # a million keys of 55 bytes have nodes of 170 MB
SUMMARY_CACHE_BYTES: Final = 128 * MIB  # of two million records, when so many are listed
SUMMARY_CACHE_BYTES_MIN: Final = MIB
REACH_CACHE_BYTES: Final = 16 * MIB  # nodes of one walk for what Forge lacks, after damage

# -- bodies -------------------------------------------------------------------------------------
INLINE_BYTES_MAX: Final = 4 * KIB  # a body up to this stands in its record
CHUNK_BYTES: Final = 1 * MIB
LOG_CHUNK_BYTES_MAX: Final = 64 * KIB  # a chunk up to this goes to the log stream
BODY_NODE_ENTRIES_MAX: Final = 1024
CHUNK_POOL_BUFFERS: Final = 128  # the one pool for bodies coming in: 128 MiB at most
READ_POOL_BUFFERS: Final = 48  # and going out
SMALL_POOL_BUFFERS: Final = 512  # of LOG_CHUNK_BYTES_MAX, for small bodies still on their way
POOL_IDLE_BUFFERS: Final = 16  # that a pool keeps warm; more are given back to the system
POOL_WAIT_S: Final = 20.0  # for a body's first buffer; then 503 SlowDown
OBJECT_BYTES_MAX: Final = 5 * 1024 * GIB
PUT_BYTES_MAX: Final = 5 * GIB  # a single PUT or part
HASH_OFFLOAD_BYTES: Final = 64 * KIB  # smaller spans are hashed on the loop (hot-path.md 4c)
HASH_SPAN_BYTES: Final = 256 * KIB  # of a chunk still arriving, handed to a hash lane at a time
METADATA_BYTES_MAX: Final = 2 * KIB  # user metadata, names and values

# -- structured blocks (DAG-CBOR) ---------------------------------------------------------------
CBOR_BYTES_MAX: Final = 4 * MIB  # a block of any format but tree nodes, which have their own limit
CBOR_DEPTH_MAX: Final = 64  # nested arrays and maps; our own formats need 6

# -- texts of keys and hashes -------------------------------------------------------------------
BASE58_CHARS_MAX: Final = 2 * KIB  # as many as a DID may have; decoding takes a millisecond then

# -- segments -----------------------------------------------------------------------------------
SEGMENT_BYTES_MAX: Final = 254 * MIB  # below piri's 266,338,304
SEGMENT_SEAL_BYTES: Final = 64 * MIB
BATCH_MUTATIONS_MAX: Final = 128
BATCH_BYTES_MAX: Final = 16 * MIB
QUEUE_MUTATIONS_MAX: Final = 4096  # waiting for a batch; over it: 503 SlowDown
VALUES_HELD_MAX: Final = 4 * 1000 * BATCH_MUTATIONS_MAX  # what cold blocks say, for batches: as
# many as a batch of DeleteObjects may ask for, or it would never have them all; 100 MB at worst
SEAL_AGE_S: Final = 5.0  # of an open segment that holds something, where there is a network
UNIT_SOURCE_BYTES: Final = 2 * SEGMENT_SEAL_BYTES  # of segments that become one unit, if possible
UNIT_SOURCE_BYTES_MAX: Final = SEGMENT_BYTES_MAX  # so that even what is all live makes a unit
UNIT_AGE_S: Final = 60.0  # a unit of less is made after that
COMPACT_STEP_BLOCKS: Final = 8  # whose links are followed in one step of the loop: 2 ms for nodes
COPY_STEP_BLOCKS: Final = 128  # found or read in one step of the loop: 2 ms
PINS_MAX: Final = 65_536  # blocks of one segment that a commit record names; 2.7 MB
PASSED_OVER_TOLD_MAX: Final = 1000  # blocks of which is said that a copy is damaged
BUCKET_CONFIG_BYTES_MAX: Final = 1 * MIB  # of a bucket's documents together: all at their largest
CHECKPOINT_CONFIGS_BYTES: Final = 8 * MIB  # of configurations that one checkpoint repeats
CHECKPOINT_TRIES: Final = 8  # for want of the last one's nodes; then a whole one is written
READ_MANY_BLOCKS: Final = 128  # read together in one step of the loop, half a millisecond
READ_MANY_BYTES: Final = 1 * MIB  # and the blocks after the one that reaches this are left
STORE_LOOK_BYTES: Final = (64 * KIB, MIB, 64 * MIB)  # of a segment, for its first commit
LOG_BYTES_MAX: Final = 1024 * GIB  # default of the setting; over it: 503 SlowDown
LOG_RESERVE_SHARE: Final = 1 / 16  # of it, on top: deletions are taken while bytes are refused
LOG_RESERVE_SEGMENTS: Final = 4
LOG_WARM_SHARE: Final = 0.75  # of it: what Forge has goes from there on, before PUT is refused
LOG_SEGMENTS_MIN: Final = 8  # that must fit into it: open, settled, becoming units, on the way
LOG_BYTES_MIN: Final = LOG_SEGMENTS_MIN * MIB
FULL_RETRY_S: Final = 60

# -- cold segments: what is read from the network --------------------------------------------------
COLD_WINDOW_BYTES: Final = 16 * MIB  # that one reader of a body has coming; refilled at half
COLD_AHEAD_BYTES_MAX: Final = 48 * MIB  # all that was not asked for yet, under way or come
COLD_AHEAD_S: Final = 60.0  # in which it should be asked for; then it makes room
COLD_MEMORY_BYTES: Final = 16 * MIB  # of what was asked for, kept for the next
COLD_RUN_BYTES: Final = 16 * MIB  # one ranged request, from end to end
COLD_GAP_BYTES: Final = 64 * KIB  # of others' frames that are fetched along, to save a request
COLD_FETCHES_MAX: Final = 16  # ranged requests at a time
COLD_LOCATED_S: Final = 60.0  # that the indexing service is believed about where a file is
COLD_LOCATED_MAX: Final = 1024  # files of which that is remembered
COLD_NOTE_BYTES_MAX: Final = 1 * MIB  # of what is noted of a cold segment; location tokens mostly
RETENTION_ROUND_S: Final = 30.0  # between two looks at the budget
RETENTION_PROBES: Final = 4  # parts of a file that are read back before it goes
RETENTION_PROBE_BYTES: Final = 64 * KIB  # each of them
COLD_CACHE_BYTES: Final = 1 * GIB  # default of the cache on disk
COLD_CACHE_FILE_BLOCKS_MAX: Final = 131_072  # 44 bytes of memory each, in eight files

# -- HTTP ---------------------------------------------------------------------------------------
CONNECTIONS_MAX: Final = 4096
HEADER_BYTES_MAX: Final = 64 * KIB  # request line and headers
HEADER_COUNT_MAX: Final = 256
TARGET_BYTES_MAX: Final = 16 * KIB  # a key and five parameters of KEY_BYTES_MAX, all escaped
QUERY_PARAMETERS_MAX: Final = 256
ECHOED_CHARS_MAX: Final = 1 * KIB  # of what a client sent, in the error that it hears
REQUESTS_PER_TURN: Final = 16  # that go the general way, of all connections: 5 ms
HEADER_DEADLINE_S: Final = 30.0  # from the first byte of a request to the end of its headers
IDLE_DEADLINE_S: Final = 120.0  # between requests
BODY_STALL_S: Final = 30.0  # no byte for this long: 400 RequestTimeout
BODY_RATE_MIN: Final = 1 * KIB  # bytes a second, averaged after the first BODY_STALL_S
SEND_STALL_S: Final = 60.0  # a client that reads nothing for this long
DRAIN_BYTES_MAX: Final = (
    256 * KIB
)  # of an unread body, so that a refused request keeps its connection
RECV_BYTES: Final = 256 * KIB  # the shared receive buffer
XML_BYTES_MAX: Final = 4 * MIB
XML_DEPTH_MAX: Final = 16
CONTROL_REFERENCES_MAX: Final = (
    10_000  # in a document's names of keys: ten each; a few ms to see to
)
XML_STEP_BYTES: Final = 2 * KIB  # of a document that are parsed before others' turn: 2 ms at worst
XML_TAG_BYTES_MAX: Final = 4 * XML_STEP_BYTES  # with its attributes, or of a comment
XML_ELEMENTS_MAX: Final = 64  # and attributes: of a document that has a dozen
XML_TAGS_ELEMENTS_MAX: Final = 256  # of one with 50 tags
XML_LIST_ELEMENTS_MAX: Final = 1000  # of one with 100 grants or 50 routing rules
XML_RULES_ELEMENTS_MAX: Final = 20_000  # of a thousand rules, ten tags each in a few of them
DOCUMENT_AT_ONCE_BYTES: Final = 16 * KIB  # of one that is hashed in one step
DOCUMENT_BYTES_MAX: Final = 16 * KIB  # of a configuration that has a dozen elements at most
TAGS_BYTES_MAX: Final = 128 * KIB  # of a document with 50 tags; each may have 1.5 KB, twice escaped
DOCUMENT_HASH_BYTES: Final = 128 * KIB  # of a long one, hashed before others' turn: a millisecond
DOCUMENT_FACTOR: Final = 4  # bytes of memory for a byte of a document, copied and parsed,
DOCUMENT_ENTRIES_FACTOR: Final = 32  # and on top of these for what its entries come to,
DELETE_ENTRIES_BYTES: Final = 1 * MIB  # but no more than this for a thousand keys,
COMPLETE_ENTRIES_BYTES: Final = 16 * MIB  # and for 10,000 parts with their chunks
DOCUMENTS_BYTES: Final = 96 * MIB  # of memory for all documents of accounts,
DOCUMENTS_SHARE_BYTES: Final = 32 * MIB  # and for one account's: the largest there is
OPEN_DOCUMENT_BYTES_MAX: Final = 512 * KIB  # of a document that has no signature
OPEN_DOCUMENTS_BYTES: Final = 8 * MIB  # of memory for all of those,
OPEN_DOCUMENTS_SHARE_BYTES: Final = 4 * MIB  # and for those of one address
DOCUMENT_WAIT_S: Final = 20.0  # for room; then 503 SlowDown
DOCUMENT_ARRIVAL_S: Final = 30.0  # for the whole of one: it keeps others out meanwhile
STOP_DEADLINE_S: Final = 30.0  # how long a drain waits for requests in flight
HEAD_READ_BYTES: Final = 64 * KIB  # one read between requests: a head and what follows it
SEND_JOIN_BYTES: Final = 64 * KIB  # a body up to this is copied behind its head: one send
SENDS_TOGETHER_MIN: Final = 4  # connections; with fewer, each answer is sent as soon as it is made
SENDS_TOGETHER_MAX: Final = 64  # answers held for the end of a turn of the loop
SEND_TOGETHER_BYTES_MAX: Final = 16 * KIB  # of one that is held
SEND_TURN_BYTES: Final = 4 * MIB  # to a peer that reads as fast as we send, before others' turn
CHUNK_LINE_BYTES_MAX: Final = 1 * KIB  # size and extensions of a chunk of chunked transfer coding
TRAILER_BYTES_MAX: Final = 8 * KIB  # all trailer fields of one chunked body
HANDSHAKE_DEADLINE_S: Final = 10.0  # a whole TLS handshake
DRAIN_DEADLINE_S: Final = 5.0  # for the rest of a body that nobody read
LINGER_DEADLINE_S: Final = 10.0  # reading after the last answer, so that no RST overtakes it
LINGER_STALL_S: Final = 2.0  # and of that, for the next byte
REQUESTS_PER_WAKE: Final = 32  # pipelined requests answered before others get their turn
ACCEPTS_PER_WAKE: Final = 64
ACCEPT_PAUSE_S: Final = 0.1  # after accept() failed for want of descriptors or memory
REFUSALS_MAX: Final = 64  # connections over the cap that are being told 503
DISPLACE_AMONG: Final = 64  # of the oldest connections one is closed for a new one over the cap
LISTEN_BACKLOG: Final = 1024

# -- accounts of a host -------------------------------------------------------------------------
ACCOUNT_LIFETIME_S: Final = 60.0  # that one is believed: a revoked key works no longer than that
UNKNOWN_KEY_LIFETIME_S: Final = 5.0  # that there is none: a new key works after that at the latest
ACCOUNTS_HELD_MAX: Final = 4096
UNKNOWN_KEYS_HELD_MAX: Final = 4096
ACCOUNT_LOOKUP_S: Final = 5.0  # that the host's store may take; then 503
ACCOUNT_LOOKUPS_MAX: Final = 64  # at a time; 503 for further keys
ACCOUNT_LOOKUPS_NEW_MAX: Final = 48  # of them, of keys that were not found before: anybody's
ACCOUNT_LOOKUPS_PEER_MAX: Final = 16  # of those, for one address
ACCOUNT_REFRESH_S: Final = 15.0  # before its end an account in use is looked up anew
ACCOUNT_REFRESH_AGAIN_S: Final = 1.0  # after one that failed
ACCESS_KEY_CHARS_MAX: Final = 128  # of one that the host's store is asked about

# -- form uploads -------------------------------------------------------------------------------
FORM_FIELDS_BYTES_MAX: Final = 20 * KIB  # names and values before the file: S3's own rule
FORM_HEAD_BYTES_MAX: Final = 64 * KIB  # all that stands before the file, heads of parts too
FORM_LINE_BYTES_MAX: Final = 4 * KIB  # of the head of a part; the file's name is in one
FORM_REST_BYTES_MAX: Final = 1 * MIB  # behind the file, which is read and passed over
FORM_PARTS_MAX: Final = 256
FORM_BUFFER_BYTES: Final = 64 * KIB  # of the body, parsed at a time

# -- multipart uploads --------------------------------------------------------------------------
PARTS_MAX: Final = 10_000
PART_BYTES_MIN: Final = 5 * MIB  # of any part but the last
PART_ENTRIES_MAX: Final = (
    16  # of its body that a part brings to its object; more get their own node
)
COMPLETED_KEPT_MS: Final = 6 * 3600 * 1000  # so long a repeated Complete hears the same answer
COMPLETED_PRUNED_MAX: Final = 32  # markers of completed uploads that one mutation looks at
COMPLETE_TRIES: Final = 8  # of a Complete whose parts are replaced meanwhile; then 503

# -- signatures and aws-chunked -----------------------------------------------------------------
CLOCK_SKEW_MS_MAX: Final = 15 * 60 * 1000  # of a signature's time, either way: S3's rule
SIGNING_KEYS_MAX: Final = 1024  # derived keys held; one for each access key, day and region in use
AUTHORIZATIONS_MAX: Final = 1024  # parsed forms of Authorization values held, of verified requests
LIFECYCLE_FIRST_S: Final = 600.0  # after a start, or a tenth of a day where days are shorter
LIFECYCLE_ROUNDS_A_DAY: Final = 4  # each reads every record of the buckets with rules
LIFECYCLE_PAGE: Final = 500  # versions that are looked at between two looks at the newest head
LIFECYCLE_STEPS_PER_TURN: Final = 1000  # rules looked at before others' turn: 2 ms
LIFECYCLE_BATCH: Final = 100  # removals in one mutation: requests have their place in its batch
LIFECYCLE_SKEW_MS: Final = 3_600_000  # between ours and Postgres's clock; over it nothing goes
CLOCK_MOVED_MS_MAX: Final = 3_600_000  # since the start; over it nothing goes, nor do locks end
ACL_GRANTS_MAX: Final = 100  # of one access control list, S3's own rule
GRANTEE_CHARS_MAX: Final = 256  # of a canonical id in one; ours have 64
JUDGED_TRIES: Final = 8  # of a right, where what it rests on is changed meanwhile; then 503
PARSED_DOCUMENTS_MAX: Final = 256  # of a kind, of buckets' configurations
PARSED_BYTES_MAX: Final = 16 * MIB  # of memory for them, six kinds: 14 policies at worst
BUCKETS_OF_ACCOUNT_MAX: Final = 10_000  # of an account: S3's own default
ACTION_PATTERNS_MAX: Final = 100  # of a policy, each tried with the names of all actions: 15 ms
CONDITION_CHARS_MAX: Final = KIB + 128  # of what a request says, for a policy's condition: a key
# with its bucket, or a header that is not out of the common
POLICY_PATTERN_STEPS_MAX: Final = 1500  # of matching a policy's patterns: a millisecond
CHECKED_KEYS_PER_TURN: Final = 4  # of DeleteObjects, each asked about twice: 10 ms at worst
AUTHORIZATION_BYTES_MAX: Final = 1 * KIB  # of one that is held; a longer one is parsed each time
FRAMED_CHUNK_BYTES_MIN: Final = 8 * KIB  # of any chunk but the last, S3's own rule
FRAMING_BUFFER_BYTES: Final = 16 * KIB  # a framed body's lines and the data read along with them

# -- registry -----------------------------------------------------------------------------------
LEASE_TTL_S: Final = 15.0
LEASE_MARGIN_S: Final = 3.0
LEASE_RENEW_S: Final = 3.0
STANDBY_POLL_S: Final = 0.25  # a standby asks so often whether lock and lease are free
SWAP_TIMEOUT_S: Final = 5.0
SWAP_RETRY_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)  # then the last again
ROWS_RETRY_S: Final = (
    1.0  # until the state of a segment is offered again to a registry that is away
)
ROWS_END_S: Final = 1.0  # for the last of them, at the end
BUSY_POLL_S: Final = 0.002  # that the loop does not sleep while a commit is under way
GATHER_S: Final = 0.002  # that a batch waits for more: about what a commit takes
COMMIT_DEADLINE_S: Final = 20.0  # a waiter of the pipeline gets 503 after this
REGISTRY_PATIENCE_S: Final = 2.0  # a waiter's, once the registry is known to be away
HEADS_KEPT: Final = 1000  # root history a bucket keeps in the registry
REGISTRY_CONNECT_S: Final = 5.0  # one attempt to connect and prepare
REGISTRY_RECONNECT_S: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)  # then the last again
REGISTRY_CALL_S: Final = 5.0  # everything small but the swap; a renewal is one of these
REGISTRY_SCAN_S: Final = 60.0  # reading all buckets, migrating
REGISTRY_PRUNE_S: Final = 2.0  # one batch of pruning, behind which a renewal waits
PRUNE_ROWS: Final = 10_000  # head rows a batch of pruning deletes
REPLAY_MOVES: Final = 4096  # heads a start swaps forward at a time, behind which a renewal waits

# -- Forge: what its services' decoders take (forge.md section 1.4), so what is written and read --
UCAN_ENTRIES_MAX: Final = 8192  # of an array or a map: also tokens, proofs, slices and shards
UCAN_FIELDS_MAX: Final = 4096  # of a map whose keys are data and not names
UCAN_TEXT_BYTES_MAX: Final = 8 * KIB
UCAN_NAME_BYTES_MAX: Final = 2 * KIB  # a DID or a command
UCAN_BYTES_MAX: Final = 2 * MIB  # a byte string, so a token in a container as well
UCAN_INTEGER_MAX: Final = (1 << 63) - 1  # of times and comparisons
UCAN_TTL_S: Final = 30  # of an invocation or a delegation for one request: Forge's own default
UCAN_NONCE_BYTES: Final = 16
POLICY_STEPS_MAX: Final = 100_000  # statements and values looked at for one invocation: 0.1 s
CONTAINER_BYTES_MAX: Final = CBOR_BYTES_MAX  # once decompressed
CONTAINER_HEADER_WRITE_MAX: Final = 7 * KIB  # of 8,190 for a line in common servers
CONTAINER_HEADER_READ_MAX: Final = 64 * KIB
CONTAINER_ANSWER_TOKENS_MAX: Final = 32  # in the header of an answer: a receipt, and its proofs
CONTAINER_ANSWER_BYTES_MAX: Final = 256 * KIB  # of those, once decompressed
DID_DOCUMENT_BYTES_MAX: Final = 64 * KIB
DID_DOCUMENT_METHODS_MAX: Final = 16  # each is tried for each signature, a tenth of a millisecond
FORGE_INDEX_BYTES_MAX: Final = 32 * MIB  # one archive: the largest section the indexer reads
FORGE_QUERY_BYTES_MAX: Final = 64 * MIB  # an answer of the indexer, indexes included
FORGE_QUERY_CLAIMS_MAX: Final = 1024  # of one answer, that are verified: 0.1 ms each
FORGE_QUERY_INDEXES_MAX: Final = 256  # of one answer, that are looked into
FORGE_QUERY_TOLD_MAX: Final = 8  # of what is set aside in one answer, told one by one
FORGE_LOCATE_S: Final = 30.0  # for one answer, with all that it takes to believe it
FORGE_PLACES_MAX: Final = 16  # of a block, that are given to its reader

# -- Forge's services, as the network for tests and development has them ------------------------
FORGE_BLOB_BYTES_MAX: Final = 268_435_456  # a node's limit for one blob
FORGE_ADDRESS_TTL_S: Final = 24 * 3600  # of the address that an allocation gives
FORGE_FAILURE_TTL_S: Final = 30  # of the receipt of a command that failed without a name for it
FORGE_LIST_MAX: Final = 1000  # results on one page
DID_DOCUMENT_TTL_S: Final = 3 * 3600  # that a fetched document is believed
NETWORK_NODES_MAX: Final = 64
NETWORK_PORTS: Final = (20_000, 32_767)  # below those that Linux gives to outgoing connections
NETWORK_PORT_TRIES: Final = 100
NETWORK_CALL_S: Final = 30.0  # one request of a service to another, whole
NETWORK_STOP_S: Final = 2.0  # for requests under way when a service stops
NETWORK_READ_BYTES: Final = 256 * KIB  # of a blob, between network and disk
FORGE_DEV_START_S: Final = 60.0  # until the services of ``--forge-dev`` answer, on a busy machine
FORGE_DEV_STOP_S: Final = 10.0  # for their end, before they are killed
FORGE_DEV_LOCK_S: Final = 15.0  # for the end of those whose gateway was killed
FORGE_DEV_POLL_S: Final = 0.05
NETWORK_QUERY_NAMES_MAX: Final = 100  # multihashes that one query asks about

# -- Forge: calls to its services ---------------------------------------------------------------
FORGE_CONNECTIONS_MAX: Final = 32  # of one client, to all services together
FORGE_CONNECT_S: Final = 10.0
FORGE_ANSWER_S: Final = 60.0  # to the first byte: the service asks nodes and the indexer meanwhile
FORGE_STALL_S: Final = 30.0  # no byte for this long, either way
FORGE_RATE_MIN: Final = 32 * KIB  # bytes a second, beyond FORGE_ANSWER_S for the whole call
FORGE_PIECE_BYTES: Final = 256 * KIB  # of a blob, read from its file at a time; digested in 0.2 ms
FORGE_HEADER_BYTES_MAX: Final = CONTAINER_HEADER_READ_MAX + 8 * KIB  # one line of an answer's head
FORGE_ERROR_TEXT_MAX: Final = 1 * KIB  # read of an answer that tells in words what was wrong
FORGE_URL_CHARS_MAX: Final = 2 * KIB
FORGE_URLS_MAX: Final = 8  # of one location; more are not looked at
FORGE_ADDRESS_HEADERS_MAX: Final = 32  # that a node wants to see with a blob
FORGE_TRIES: Final = 4  # of one operation, before its caller decides
FORGE_BACKOFF_S: Final = 0.5  # before the second try, doubled for each one after it
FORGE_BACKOFF_MAX_S: Final = 8.0
FORGE_POLLS: Final = 10  # for a receipt that is not there yet: Forge's own default
FORGE_POLL_S: Final = 1.0
FORGE_BREAKER_FAILURES: Final = 5  # in a row; then the service is left alone
FORGE_BREAKER_OPEN_S: Final = 15.0  # for so long, until one call tries it again
FORGE_BREAKERS_MAX: Final = 1024  # services of which is known how they do; tokens name any number
FORGE_DOCUMENTS_MAX: Final = 1024  # DID documents held
FORGE_AUTHORITIES_MAX: Final = 16  # documents fetched to check one answer
FORGE_RECEIPTS_MAX: Final = 4  # for one task in one answer, that are looked at
FORGE_RETRIEVAL_AUTH_S: Final = 300  # in which the indexer has to fetch an index
FORGE_QUERY_AUTH_S: Final = 60  # and to look into one for a query
FORGE_UPLOADS_MAX: Final = 100_000  # roots of a space, or blobs of one root, that are listed
FORGE_PAGES_MAX: Final = 100_000  # of one listing: 100 million blobs on full pages
FORGE_KEY_BYTES_MAX: Final = 16 * KIB  # of a file with a private key
FORGE_IMPORT_BYTES_MAX: Final = 2 * CONTAINER_BYTES_MAX  # of a file with delegations, as base64
FORGE_TAIL_BYTES: Final = (64 * KIB, 4 * MIB)  # of a CAR, to find its root in
FORGE_ROOT_BYTES_MAX: Final = NODE_BYTES_READ_MAX  # of a root's block: no frame of ours holds more
FORGE_ROOT_PLACES: Final = 256  # of its name in such a tail that are looked at
FORGE_ROOT_HASHED_BYTES: Final = 16 * MIB  # and what is hashed there in all: 15 ms
FORGE_FAULTY_NODES_MAX: Final = 1024  # of which is known that they failed lately
FORGE_FAULTY_S: Final = 60.0  # that such a node is asked after the others

# -- shipping -----------------------------------------------------------------------------------
SHIP_ROOTS_LOOKED_AT: Final = 256  # that others name, each time before ours is named
SHIP_FILES: Final = 8  # on their way at a time
SHIP_INDEXES: Final = 4  # of those, files whose indexes are in memory: 250 bytes a block
SHIP_BACKOFF_S: Final = 1.0  # of one file, after the client's own tries; doubled for each failure
SHIP_BACKOFF_MAX_S: Final = 60.0  # so long at most until a service that is back is noticed
SHIP_PROBLEMS_TOLD_MAX: Final = 100
STANDING_S: Final = 5.0  # how far shipping is, is written down so often where it has changed,
STANDING_REPEAT_S: Final = 60.0  # and so often where it has not
SHIP_SCAN_BYTES: Final = 4 * MIB  # of a file that is verified, read and hashed at a time
SHIP_HEADS_BYTES: Final = 256 * KIB  # of one of which only the frames' heads are looked at

# -- restoring from the network -----------------------------------------------------------------
RESTORE_LOOKS: Final = 8  # blobs looked at, at a time
RESTORE_PROGRESS_S: Final = 5.0  # between two lines that say how far a long step is
RESTORE_READ_BYTES: Final = 8 * MIB  # of a segment that has no index, read at a time
RESTORE_RUN_SEGMENTS: Final = 64  # that share one run
RESTORE_RUN_BYTES: Final = 512 * MIB  # and of all of those no more: 100 MiB of memory at worst

assert LOG_CHUNK_BYTES_MAX < CHUNK_BYTES
assert CHUNK_BYTES < COLD_WINDOW_BYTES <= COLD_AHEAD_BYTES_MAX
assert ACCOUNT_LOOKUPS_PEER_MAX < ACCOUNT_LOOKUPS_NEW_MAX < ACCOUNT_LOOKUPS_MAX
assert ACCOUNT_LOOKUP_S < ACCOUNT_REFRESH_S < ACCOUNT_LIFETIME_S
assert COLD_FETCHES_MAX < FORGE_CONNECTIONS_MAX
assert UCAN_NAME_BYTES_MAX <= BASE58_CHARS_MAX
assert BUCKET_CONFIG_BYTES_MAX < CBOR_BYTES_MAX
assert SEGMENT_BYTES_MAX < FORGE_BLOB_BYTES_MAX
assert FORGE_INDEX_BYTES_MAX < FORGE_QUERY_BYTES_MAX
assert FORGE_BACKOFF_MAX_S < FORGE_BREAKER_OPEN_S
assert NODE_BYTES_READ_MAX + KIB < SHIP_SCAN_BYTES  # any frame is seen whole
assert FORGE_ROOT_BYTES_MAX + KIB < FORGE_TAIL_BYTES[-1]
assert SHIP_INDEXES <= SHIP_FILES
assert SEGMENT_SEAL_BYTES + BATCH_BYTES_MAX + NODE_BYTES_READ_MAX < SEGMENT_BYTES_MAX
assert DOCUMENT_FACTOR * XML_BYTES_MAX + COMPLETE_ENTRIES_BYTES <= DOCUMENTS_SHARE_BYTES
assert 2 * DOCUMENTS_SHARE_BYTES < DOCUMENTS_BYTES
assert (
    DOCUMENT_FACTOR * OPEN_DOCUMENT_BYTES_MAX + DELETE_ENTRIES_BYTES <= OPEN_DOCUMENTS_SHARE_BYTES
)
assert HEAD_READ_BYTES <= RECV_BYTES
assert CHUNK_LINE_BYTES_MAX < HEAD_READ_BYTES
assert LEASE_RENEW_S < LEASE_TTL_S - LEASE_MARGIN_S
assert LEASE_RENEW_S + REGISTRY_CALL_S < LEASE_TTL_S - LEASE_MARGIN_S  # a slow renewal is in time
