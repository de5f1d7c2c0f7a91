"""Asks before a plan spends more than it declares. It knows what a plan may send, and sends nothing."""

import sys

from load.plan import Plan
from load.settings import SettingsError, is_loopback


def check_budget(plan: Plan, endpoint: str, yes: bool, ask: bool = True) -> None:
    """A plan over its budget of requests needs --yes or a yes at the terminal, unless it stays on this machine.

    `ask=False` where nobody is at the terminal. Raises SettingsError.
    """
    if yes or is_loopback(endpoint):
        return
    planned = plan.expected()
    dollars = plan.estimated_dollars(planned)
    if planned <= plan.budget.requests and dollars <= plan.budget.dollars:
        return
    question = (
        f"{plan.profile} sends {planned} requests, about ${dollars:.2f}; "
        f"its budget is {plan.budget.requests} and ${plan.budget.dollars:.2f}"
    )
    if ask and sys.stdin.isatty():
        print(f"{question}. Send them? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise SettingsError(f"{question}; lower --rate or --duration, raise the budget, or give --yes")
