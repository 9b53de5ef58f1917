"""What a commit's moves mean for the rows of heads; shared by both registries. Pure.

A head's row has its bucket, its sequence and either a ``Head`` or, where the bucket was deleted, a
tombstone: one sequence after the last head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ingot.errors import RootMoved
from ingot.messages import BucketRow, CommitRef, Head, HeadMove

Commit = tuple[CommitRef, Sequence[HeadMove]]


@dataclass(frozen=True, slots=True)
class HeadRow:
    """One row as it stands; ``head`` None is a tombstone."""

    bucket: bytes
    sequence: int
    head: Head | None


def new_sequence(move: HeadMove) -> int:
    """The sequence of the row that this move inserts."""
    if move.new is None:
        assert move.old is not None, "a move from nothing to nothing"
        return move.old.sequence + 1
    assert move.old is None or move.new.sequence == move.old.sequence + 1, "a sequence was skipped"
    return move.new.sequence


def is_plain(moves: Sequence[HeadMove]) -> bool:
    """Whether each goes from a head to a head: no creation, no deletion."""
    return all([move.old is not None and move.new is not None for move in moves])


def runs(commits: Iterable[Commit]) -> Iterator[list[Commit]]:
    """Cut into what one statement can take: commits of plain moves together, others alone."""
    run: list[Commit] = []
    for commit in commits:
        if is_plain(commit[1]):
            run.append(commit)
            continue
        if run:
            yield run
        yield [commit]
        run = []
    if run:
        yield run


def chain(run: Sequence[Commit]) -> tuple[list[object], ...]:
    """The arrays that ``statements.SWAP_RUN`` takes after the fence: the moves of ``run`` in order.
    Only the first of each bucket is compared with what stands, so the others are compared here with
    the one before them. RootMoved where one does not continue it."""
    heads: dict[bytes, tuple[int, Head | None]] = {}
    moves: list[HeadMove] = []
    sequences: list[object] = []
    records: list[object] = []
    follows: list[object] = []
    for ref, of_commit in run:
        for move in of_commit:
            before = heads.get(move.bucket)
            if before is not None and (before[0] == ref.sequence or before[1] != move.old):
                raise RootMoved(f"commit {ref.sequence}: bucket {move.name} does not continue")
            heads[move.bucket] = ref.sequence, move.new
            moves.append(move)
            sequences.append(ref.sequence)
            records.append(ref.record)
            follows.append(before is not None)
    return (*columns(moves), sequences, records, follows)


def columns(moves: Sequence[HeadMove]) -> tuple[list[object], ...]:
    """The arrays that ``statements.SWAP`` takes after the commit."""
    olds = [move.old or _NOTHING for move in moves]
    news = [move.new or _NOTHING for move in moves]
    return (
        [move.bucket for move in moves],
        [new_sequence(move) for move in moves],
        [old.objects for old in olds],
        [old.uploads for old in olds],
        [old.config for old in olds],
        [new.objects for new in news],
        [new.uploads for new in news],
        [new.config for new in news],
    )


def scalars(move: HeadMove) -> tuple[object, ...]:
    """What ``statements.SWAP_ONE`` takes after the commit, for a move from head to head."""
    old, new = move.old, move.new
    assert old is not None and new is not None, "a creation or a deletion"
    assert new.sequence == old.sequence + 1, "a sequence was skipped"
    return (
        move.bucket,
        new.sequence,
        old.objects,
        old.uploads,
        old.config,
        new.objects,
        new.uploads,
        new.config,
    )


def kinds(moves: Sequence[HeadMove]) -> tuple[list[object], ...]:
    """The further arrays of ``statements.SWAP_ANY``: name, created, deleted."""
    return (
        [move.name for move in moves],
        [move.old is None for move in moves],
        [move.new is None for move in moves],
    )


def standing_for(newest: CommitRef, rows: Sequence[BucketRow], nobody: bytes) -> HeadRow | None:
    """What an import adds so that ``newest`` is the newest commit where no bucket's head is of that
    commit (it deleted a bucket, or cannot be read): the tombstone of a bucket that never was, with
    the fresh id ``nobody``. None where it is not needed."""
    if newest.sequence == 0 or any(row.commit == newest for row in rows):
        return None
    return HeadRow(nobody, 0, None)


def resolve(moves: Sequence[HeadMove], rows: Iterable[HeadRow]) -> bool:
    """``Registry.swapped``, from a reading of each bucket's newest row and of the row at the move's
    new sequence, where there are such."""
    at: dict[tuple[bytes, int], HeadRow] = {}
    newest: dict[bytes, HeadRow] = {}
    for row in rows:
        at[row.bucket, row.sequence] = row
        if row.bucket not in newest or newest[row.bucket].sequence < row.sequence:
            newest[row.bucket] = row
    done = [_is_done(move, at) for move in moves]
    if all(done):
        return True
    for move in moves:
        standing = newest.get(move.bucket)
        if (standing.head if standing is not None else None) != move.old or (
            standing is not None and standing.head is None
        ):
            found = "nothing" if standing is None else f"sequence {standing.sequence}"
            raise RootMoved(f"bucket {move.name}: expected {move.old}, the registry has {found}")
    return False


def _is_done(move: HeadMove, at: dict[tuple[bytes, int], HeadRow]) -> bool:
    row = at.get((move.bucket, new_sequence(move)))
    return row is not None and row.head == move.new


_NOTHING = Head(0)
