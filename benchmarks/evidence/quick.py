"""A sample of the experiments on digits, which takes less than a minute: the same engine, tiny trainings."""

from dataclasses import replace

from protocol import Claim, Condition, Setting

#: The claims of the sample, if none are named.
NUMBERS = (0, 13)
_DIGITS = Setting("digits, 200 images, small CNN", "digits", 200, "small CNN without BatchNorm", 4, (2e-3,), 2)


def sample(claim: Claim) -> Claim:
    """Returns a claim with digits in place of its first setting, its first two conditions, and no choice."""
    setting, conditions = claim.trials[0]
    few = tuple(_fixed(each) for each in conditions[:2])
    small = replace(setting, seeds=2) if "," in setting.data else _DIGITS
    statements = tuple(replace(each, settings=()) for each in claim.statements)
    return replace(claim, trials=((small, few),), statements=statements)


def _fixed(condition: Condition) -> Condition:
    """Returns a condition without a choice, with the network of the sample."""
    changes = tuple((name, value) for name, value in condition.changes if name not in ("network", "members"))
    return Condition(condition.name, condition.plans, changes, (), fixed=True)
