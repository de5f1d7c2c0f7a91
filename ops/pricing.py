"""What a range of invocations cost, from a dated price table; us-east-1 list prices without the free tier.

It must not guess: a part that the logs do not show (data transfer, log storage, savings plans) is named as left out.
Source of every figure: AWS's Lambda and API Gateway pricing pages and the AWS price list as copied on 2026-09-28;
the INIT phase is billed as duration since 2025-08-01 and is part of `Billed Duration`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

PRICES_AS_OF = "2026-09-28"
PRICES_REGION = "us-east-1"
PRICES_SOURCE = "AWS Lambda and API Gateway pricing pages and the AWS price list, us-east-1, copied 2026-09-28"
FREE_TMP_MB = 512.0

type Architecture = Literal["x86_64", "arm64"]
type Gateway = Literal["rest", "http", "none"]

# (GB-seconds of the tier, dollars each); the last tier has no end. AWS Lambda pricing, "Duration".
_DURATION_TIERS: dict[Architecture, tuple[tuple[float, float], ...]] = {
    "x86_64": ((6e9, 0.0000166667), (9e9, 0.000015), (float("inf"), 0.0000133334)),
    "arm64": ((7.5e9, 0.0000133334), (11.25e9, 0.0000120001), (float("inf"), 0.0000106667)),
}
_REQUEST = 0.20 / 1e6
_TMP_GB_SECOND = 0.0000000309  # price-list rate code CVY5JH8RFRXMP92N, over 512 MB
_SNAPSTART_RESTORE_GB = 0.0001397998
_SNAPSTART_CACHE_GB_SECOND = 0.0000015046  # three hours a version at least
_PROVISIONED_IDLE_GB_SECOND: dict[Architecture, float] = {"x86_64": 0.0000041667, "arm64": 0.0000033334}
_PROVISIONED_RUN_GB_SECOND: dict[Architecture, float] = {"x86_64": 0.0000097222, "arm64": 0.0000077778}
_TENANT_ENVIRONMENT_GB: dict[Architecture, float] = {"x86_64": 0.000166667, "arm64": 0.000133333}
_GATEWAY_REQUEST: dict[Gateway, float] = {"rest": 3.50 / 1e6, "http": 1.00 / 1e6, "none": 0.0}
_LOG_INGESTED_GB = 0.50  # first tier of Lambda's vended logs


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used, in the units of the bill; `gb_seconds` is billed duration, INIT included, times memory."""

    requests: int
    gb_seconds: float
    init_gb_seconds: float = 0.0
    tmp_gb_seconds: float = 0.0
    restored_gb: float = 0.0
    snapstart_cache_gb_seconds: float = 0.0
    provisioned_idle_gb_seconds: float = 0.0
    provisioned_run_gb_seconds: float = 0.0
    tenant_environment_gb: float = 0.0
    log_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What is paid for whether it is used or not, which no log line shows: None is not known, and left out by name."""

    provisioned: int | None = None
    snapstart_versions: int | None = None

    @property
    def left_out(self) -> list[str]:
        named = {"SnapStart cache": self.snapstart_versions, "idle provisioned": self.provisioned}
        return [name for name, count in named.items() if count is None]


@dataclass(frozen=True, slots=True)
class Bill:
    """What a bill depends on beside the logs; `tmp_mb` is the size of /tmp."""

    architecture: Architecture = "x86_64"
    gateway: Gateway = "rest"
    tmp_mb: float = FREE_TMP_MB
    kept: Kept = Kept()


NOTHING_TOLD = Bill()


@dataclass(frozen=True, slots=True)
class Used:
    """What invocations at one memory size used; `billed_s` has the INIT of `billed_init_s` in it.

    `on_provisioned` says that they ran on provisioned environments, `tenants` counts environments made for one tenant.
    """

    memory_mb: float
    billed_s: float
    billed_init_s: float
    restored: int = 0
    tenants: int = 0
    on_provisioned: bool = False


def usage_of(rows: Collection[Used], requests: int, log_bytes: int, span_s: float, bill: Bill) -> Usage:
    """Everything that is billed for a range of `span_s` seconds.

    What is kept has the largest size used; a provisioned environment is paid for 5 minutes at least, a SnapStart
    version's cache for 3 hours.
    """
    gb = [row.memory_mb / 1024 for row in rows]
    on_demand = [(row, size) for row, size in zip(rows, gb, strict=True) if not row.on_provisioned]
    largest, kept = max(gb, default=0.0), bill.kept
    return Usage(
        requests=requests,
        gb_seconds=sum(row.billed_s * size for row, size in on_demand),
        init_gb_seconds=sum(row.billed_init_s * size for row, size in on_demand),
        tmp_gb_seconds=sum(row.billed_s for row in rows) * max(0.0, bill.tmp_mb - FREE_TMP_MB) / 1024,
        restored_gb=sum(row.restored * size for row, size in zip(rows, gb, strict=True)),
        snapstart_cache_gb_seconds=(kept.snapstart_versions or 0) * largest * max(span_s, 3 * 3600.0),
        provisioned_idle_gb_seconds=(kept.provisioned or 0) * largest * max(span_s, 300.0),
        provisioned_run_gb_seconds=sum(
            row.billed_s * size for row, size in zip(rows, gb, strict=True) if row.on_provisioned
        ),
        tenant_environment_gb=sum(row.tenants * size for row, size in zip(rows, gb, strict=True)),
        log_bytes=log_bytes,
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars, part by part; `init` is the share of `duration` that cold starts caused, not an addition to it."""

    duration: float
    init: float
    requests: float
    tmp: float
    gateway: float
    snapstart: float
    provisioned: float
    tenants: float
    logs: float

    @property
    def total(self) -> float:
        """The sum of all parts (`init` is inside `duration`)."""
        return (
            self.duration
            + self.requests
            + self.tmp
            + self.gateway
            + self.snapstart
            + self.provisioned
            + self.tenants
            + self.logs
        )


def cost(usage: Usage, architecture: Architecture = "x86_64", gateway: Gateway = "rest") -> Cost:
    """Dollars for `usage` at list prices, the tiers counted from nothing as if it were the month's first."""
    duration = duration_cost(usage.gb_seconds, architecture)
    return Cost(
        duration=duration,
        init=duration * usage.init_gb_seconds / usage.gb_seconds if usage.gb_seconds else 0.0,
        requests=usage.requests * _REQUEST,
        tmp=usage.tmp_gb_seconds * _TMP_GB_SECOND,
        gateway=usage.requests * _GATEWAY_REQUEST[gateway],
        snapstart=usage.restored_gb * _SNAPSTART_RESTORE_GB
        + usage.snapstart_cache_gb_seconds * _SNAPSTART_CACHE_GB_SECOND,
        provisioned=usage.provisioned_idle_gb_seconds * _PROVISIONED_IDLE_GB_SECOND[architecture]
        + usage.provisioned_run_gb_seconds * _PROVISIONED_RUN_GB_SECOND[architecture],
        tenants=usage.tenant_environment_gb * _TENANT_ENVIRONMENT_GB[architecture],
        logs=usage.log_bytes / 1e9 * _LOG_INGESTED_GB,
    )


def duration_cost(gb_seconds: float, architecture: Architecture) -> float:
    """Dollars of on-demand duration, through the monthly tiers."""
    dollars, left = 0.0, gb_seconds
    for size, price in _DURATION_TIERS[architecture]:
        dollars += min(left, size) * price
        left -= min(left, size)
    return dollars


def invocation_cost(billed_ms: float, memory_mb: float, *, tmp_mb: float = 512, gateway: Gateway = "rest") -> float:
    """Dollars of one invocation in the first tier on x86: duration, request, /tmp over 512 MB, gateway request."""
    seconds = billed_ms / 1000
    usage = Usage(
        requests=1,
        gb_seconds=seconds * memory_mb / 1024,
        tmp_gb_seconds=seconds * max(0.0, tmp_mb - FREE_TMP_MB) / 1024,
    )
    return cost(usage, gateway=gateway).total
