"""Which rank holds the others up? Each leaves signs of life, and they say what it is doing.

When one rank hangs all of them stand still, for the others wait for it in their next exchange.
All ranks go through the same phases, numbered in the same way: who has begun the fewest is the
one to look at.

    rank 0   step 11 ▶ reading step 12 ▶ step 12 …         waits in an exchange
    rank 1   step 11 ▶ reading step 12 …                   is behind
    rank 2   step 11 ▶ reading step 12 ▶ step 12 …         waits in an exchange
"""

from typing import NamedTuple, Self

SHOWN = 4  # machines that are named


class Sign(NamedTuple):
    """That a rank lives, and at what."""

    beat: int
    pid: int
    host: str
    number: float  # of its phase
    phase: str

    @classmethod
    def read(cls, text: bytes) -> Self:
        beat, pid, host, number, phase = text.decode().split("|", 4)
        return cls(int(beat), int(pid), host, float(number), phase)

    def write(self) -> str:
        return "|".join(map(str, self))


def behind(signs: dict[int, Sign]) -> list[int]:
    """The ranks that have begun the fewest phases."""
    fewest = min(sign.number for sign in signs.values())
    return [rank for rank, sign in signs.items() if sign.number == fewest]


def held_up(signs: dict[int, Sign], seconds: float) -> str:
    """Who waits for whom, in words."""
    late = behind(signs)
    if len(signs) == len(late) > 1 and len(_by_phase(signs, late)) == 1:
        return f'all {len(late)} ranks are held up in "{signs[late[0]].phase}" for {seconds:,.0f} s'
    stuck = [
        f"{_named(ranks)} on {_hosts(signs, ranks)} {'is' if len(ranks) == 1 else 'are'} "
        f'held up in "{phase}" for {seconds:,.0f} s'
        for phase, ranks in _by_phase(signs, late).items()
    ]
    for_whom = "it" if len(late) == 1 else "them"
    waiting = [
        f'{_named(ranks)} {"waits" if len(ranks) == 1 else "wait"} for {for_whom} in "{phase}"'
        for phase, ranks in _by_phase(signs, [rank for rank in signs if rank not in late]).items()
    ]
    return ", and ".join(stuck + waiting)


def _by_phase(signs: dict[int, Sign], ranks: list[int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for rank in ranks:
        found.setdefault(signs[rank].phase, []).append(rank)
    return found


def _hosts(signs: dict[int, Sign], ranks: list[int]) -> str:
    names = list(dict.fromkeys(signs[rank].host for rank in ranks))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _named(ranks: list[int]) -> str:
    """Ranks as a person would write them: rank 3, or ranks 0, 2, 4-7."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(parts)}"
