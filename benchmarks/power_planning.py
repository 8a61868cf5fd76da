"""Planned power of the test of methods beside its power in simulated studies, in ten settings.

    python -m benchmarks.power_planning [--studies 20000]

Prints one row per setting: standard deviations (between trainings, between cases in the difference, rest), cases,
trainings of each method, true difference, level, planned power, share of simulated studies in which the test shows the
difference. The table of docs/study.md is made by this script.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunetv2.comparison.statistics.power import VarianceParts, power
from tests.comparison.statistics.test_power import SETTINGS, simulated_power


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20000, help="simulated studies per setting")
    args = parser.parse_args(argv)
    print("| trainings | difference of cases | rest | cases | seeds | difference | level | planned | simulated |")
    print("|---|---|---|---|---|---|---|---|---|")
    for setting in SETTINGS:
        *deviations, num_cases, num_trainings, difference, alpha = setting
        parts = VarianceParts(*(deviation**2 for deviation in deviations), num_free=1)
        planned = power(parts, num_cases, num_trainings, difference, alpha)
        found = simulated_power(setting, args.studies)
        cells = (*deviations, num_cases, num_trainings, difference, f"{alpha:.4f}", f"{planned:.3f}", f"{found:.3f}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
