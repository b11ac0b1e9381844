"""Prints what scipy and statsmodels say of the numbers in ../statistics.rs.

python -m venv venv && venv/bin/pip install numpy scipy statsmodels
venv/bin/python crates/evaluator/tests/references/statistics.py
"""

import sys

sys.path.pop(0)  # this file is named like a module of Python's own

import numpy
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

print("numpy", numpy.__version__, "scipy", scipy.__version__, "statsmodels", statsmodels.__version__)
for b, c in [(10, 2), (30, 12), (60, 20), (1500, 1400), (7, 7), (0, 1)]:
    exact = mcnemar([[5, b], [c, 5]], exact=True).pvalue
    corrected = mcnemar([[5, b], [c, 5]], exact=False, correction=True)
    print("mcnemar", (b, c, float(exact), float(corrected.statistic), float(corrected.pvalue)))
density, seconds = [0.1, 0.3, 0.5, 0.7, 1.0], [0.9, 1.4, 2.1, 2.4, 3.6]
line = stats.linregress(density, seconds)
print("regression", line.slope, line.intercept, line.rvalue**2)
print("deviation", numpy.std(seconds, ddof=1))
