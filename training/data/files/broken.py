"""The error for files that cannot be read."""

from pathlib import Path

from dropzoo.common.images import lacks_package


def refuse_broken(broken: dict[Path, str]) -> None:
    """Raises the error for files that cannot be read, if there are any."""
    if not broken:
        return
    advice = "Replace or remove the file{}, or pass broken='skip' (--broken skip) to leave out such files"
    advice = advice.format("" if len(broken) == 1 else "s")
    if all(map(lacks_package, broken.values())):
        raise ValueError(next(iter(broken.values())))
    if len(broken) == 1:
        path, reason = next(iter(broken.items()))
        if "Received: " in reason:  # the file is whole, and something else is wrong with it
            raise ValueError(reason)
        said = reason.partition("The decoder says: ")[2] or reason
        raise ValueError(f"Cannot read {path}. {advice}. The decoder says: {said}")
    named = "; ".join(str(path) for path in list(broken)[:20])
    more = f" and {len(broken) - 20:,} more" if len(broken) > 20 else ""
    raise ValueError(f"Cannot read {len(broken):,} files. {advice}. Received: {named}{more}")
