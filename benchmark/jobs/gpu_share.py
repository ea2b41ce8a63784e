"""How many workers share a GPU of this machine, as `make bench-gpu` measured; kept in the cache folder."""

import re
from pathlib import Path

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.errors import UserError
from benchmark.core.invocation import command

MOST = 64


def measured_share(card: str) -> int:
    """The number of workers with which a card trained most images per second.

    Args:
        card: its name, as PyTorch reports it.

    Raises:
        UserError: this card was never measured here, or the file is damaged.
    """
    path = _path(card)
    try:
        share = int(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        share = 0
    except (OSError, ValueError):
        share = -1
    if not 1 <= share <= MOST:
        fault = f"{path} is damaged" if share else f"the GPU {card} was never measured on this machine"
        raise UserError(
            f"executor.workers_per_gpu=auto: {fault}. Measure it once, in 8 minutes: {command('bench-gpu')}. Or give "
            "a number, such as executor.workers_per_gpu=1."
        )
    return share


def remember(card: str, share: int) -> None:
    """Keep the best number of workers for a card.

    Args:
        card: its name.
        share: the number.

    Raises:
        WriteError: the cache cannot be written.
    """
    records.write_whole(_path(card), f"{share}\n".encode())


def _path(card: str) -> Path:
    return user_cache_dir() / "bench-gpu" / f"{re.sub(r'[^A-Za-z0-9]+', '_', card).strip('_').lower()}.txt"
