"""Advises a function timeout from the tail of real durations, or refuses when the sample cannot bear one.

Pure. It must not extrapolate: the bound is an order statistic, the one above p99.9 with 95 % confidence, which needs
2,995 warm invocations (ln 0.05 / ln 0.999). Fitted tails (GPD) overestimate p99.9 by half once cold starts mix in.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ops.failures import Inconclusive
from ops.invocations import Invocations
from ops.percentiles import upper_bound

QUANTILE: Final = 0.999
NEEDED: Final = 2995
GATEWAY_LIMIT_S: Final = 29.0
_FLUSH_S = 2.0
_GATEWAY_SLACK_S = 1.0
_LAMBDA_LIMIT_S = 900


@dataclass(frozen=True, slots=True)
class Limits:
    """What the advice is held between, in seconds; None where there is no gateway, or no interpreter limit known."""

    gateway_s: float | None = GATEWAY_LIMIT_S
    soft_s: float | None = None
    margin: float = 0.2


class TimeoutAdvice(BaseModel):
    """The advised timeout in whole seconds, with everything it was made of; times in ms unless they end in `_s`."""

    model_config = ConfigDict(frozen=True)

    schema_: Literal["ops-tune-timeout/1"] = Field(default="ops-tune-timeout/1", alias="schema")
    timeout_s: int
    warm: int
    cold: int
    timed_out: int
    warm_p999_upper95_ms: float
    init_ms: float
    margin: float
    unclamped_s: float
    reasons: list[str]


def advise(inv: Invocations, limits: Limits) -> TimeoutAdvice:
    """Upper 95 % bound of the warm p99.9, plus the slowest init or restore, plus a margin; then held to the limits.

    Init is added because a crashed environment initialises again inside the next invocation's timeout.
    Raises Inconclusive below 2,995 warm invocations, and when timeouts hide the tail that is asked for.
    """
    cold = inv.is_cold
    cut_off = inv.outcomes == "timeout"
    warm = np.where(cut_off, np.inf, inv.duration_ms)[~cold]  # a timeout says only: longer than this
    if len(warm) < NEEDED:
        raise Inconclusive(
            f"A bound of p99.9 takes {NEEDED:,} warm invocations and the range has {len(warm):,}; widen --since."
        )
    bound = upper_bound(warm, QUANTILE)
    if bound is None or math.isinf(bound):
        raise Inconclusive(
            f"{int(cut_off.sum())} of {len(inv)} invocations were cut off by the timeout, which hides the tail; "
            "raise the timeout, gather again, then ask again."
        )
    init = _slowest_start(inv, cold)
    unclamped_s = (bound + init) / 1000 * (1 + limits.margin)
    reasons = [
        f"p99.9 of {len(warm):,} warm invocations is below {bound:.0f} ms (95 % confidence)",
        f"an environment takes up to {init:.0f} ms to get ready ({int(cold.sum())} cold starts seen)",
        f"margin {limits.margin:.0%}",
    ]
    timeout_s, clamps = hold(unclamped_s, limits)
    return TimeoutAdvice(
        timeout_s=timeout_s,
        warm=len(warm),
        cold=int(cold.sum()),
        timed_out=int(cut_off.sum()),
        warm_p999_upper95_ms=bound,
        init_ms=init,
        margin=limits.margin,
        unclamped_s=unclamped_s,
        reasons=reasons + clamps,
    )


def _slowest_start(inv: Invocations, cold: NDArray[np.bool_]) -> float:
    starts = (np.nan_to_num(inv.init_ms) + np.nan_to_num(inv.restore_ms))[cold]
    return float(starts.max()) if len(starts) else 0.0


def hold(unclamped_s: float, limits: Limits) -> tuple[int, list[str]]:
    """Whole seconds within the limits, and a sentence for each limit that moved it.

    The interpreter's own limit wins over the gateway's: below it, slow code would cost an environment each time.
    """
    timeout_s, moved = math.ceil(unclamped_s), []
    if limits.gateway_s is not None and timeout_s > limits.gateway_s - _GATEWAY_SLACK_S:
        timeout_s = int(limits.gateway_s - _GATEWAY_SLACK_S)
        moved.append(f"held below the gateway's {limits.gateway_s:g} s, after which nobody listens")
    if limits.soft_s is not None and timeout_s < limits.soft_s + _FLUSH_S:
        timeout_s = math.ceil(limits.soft_s + _FLUSH_S)
        moved.append(f"held above the interpreter's own {limits.soft_s:g} s and {_FLUSH_S:g} s to answer")
    if timeout_s > _LAMBDA_LIMIT_S:
        timeout_s = _LAMBDA_LIMIT_S
        moved.append(f"held to Lambda's {_LAMBDA_LIMIT_S} s")
    return max(1, timeout_s), moved
