"""How much work `smoke`, `test` and `full` runs do; a record says which it had. Read next: `verdicts.py`."""

from __future__ import annotations

from theory.check.claim import Budget

SMOKE, TEST, FULL = Budget("smoke", 9, 8, 4), Budget("test", 11, 48, 40), Budget("full", 14, 64, 500)
BUDGETS = {budget.name: budget for budget in (SMOKE, TEST, FULL)}
