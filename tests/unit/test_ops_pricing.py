"""Given what was used, the bill is AWS's: worked examples, and what follows from the prices by arithmetic."""

import pytest

from ops.pricing import Usage, cost, duration_cost, invocation_cost


def test_a_million_calls_of_300_ms_at_512_mb():
    bill = cost(Usage(requests=1_000_000, gb_seconds=1_000_000 * 0.3 * 0.5), gateway="none")
    assert (bill.duration, bill.requests) == pytest.approx((2.50, 0.20), abs=1e-4)
    assert bill.total == pytest.approx(2.70, abs=1e-4)


@pytest.mark.parametrize(
    ("gb_seconds", "architecture", "dollars"),
    [
        pytest.param(1e9, "x86_64", 16666.70, id="first-tier"),
        pytest.param(7e9, "x86_64", 6e9 * 0.0000166667 + 1e9 * 0.000015, id="into-the-second-tier"),
        pytest.param(16e9, "x86_64", 6e9 * 0.0000166667 + 9e9 * 0.000015 + 1e9 * 0.0000133334, id="third-tier"),
        pytest.param(8e9, "arm64", 7.5e9 * 0.0000133334 + 0.5e9 * 0.0000120001, id="arm"),
        pytest.param(0, "x86_64", 0.0, id="nothing"),
    ],
)
def test_duration_tiers(gb_seconds, architecture, dollars):
    assert duration_cost(gb_seconds, architecture) == pytest.approx(dollars)


def test_power_tunings_128_mb_100_ms_with_the_request_it_leaves_out():
    assert invocation_cost(100, 128, gateway="none") == pytest.approx(4.08e-7, rel=2e-3)


def test_a_rest_request_costs_more_than_an_http_one():
    rest, http = (cost(Usage(1_000_000, 0), gateway=g).gateway for g in ("rest", "http"))
    assert (rest, http) == pytest.approx((3.50, 1.00))


def test_tmp_is_paid_above_512_mb_only():
    assert invocation_cost(1000, 512, tmp_mb=512) == invocation_cost(1000, 512)
    extra = invocation_cost(1000, 512, tmp_mb=1536) - invocation_cost(1000, 512)
    assert extra == pytest.approx(0.0000000309)


def test_init_is_a_part_of_duration_and_not_added_again():
    bill = cost(Usage(1, gb_seconds=10, init_gb_seconds=4), gateway="none")
    assert bill.init == pytest.approx(0.4 * bill.duration)
    assert bill.total == pytest.approx(bill.duration + bill.requests)


def test_one_snapstart_restore_costs_what_8_seconds_of_init_cost():
    restore = cost(Usage(0, 0, restored_gb=1)).snapstart
    assert restore / duration_cost(1, "x86_64") == pytest.approx(8.39, abs=0.005)


def test_provisioned_concurrency_pays_above_60_percent_use():
    def provisioned(use):
        return cost(Usage(0, 0, provisioned_idle_gb_seconds=1, provisioned_run_gb_seconds=use)).provisioned

    assert provisioned(0.59) > duration_cost(0.59, "x86_64")
    assert provisioned(0.61) < duration_cost(0.61, "x86_64")


def test_a_tenants_environment_costs_ten_seconds_of_compute():
    assert cost(Usage(0, 0, tenant_environment_gb=1)).tenants / duration_cost(10, "x86_64") == pytest.approx(
        1, abs=1e-4
    )
