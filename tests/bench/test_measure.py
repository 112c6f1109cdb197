"""What the benchmarks report: measured in a process of its own, compared by medians."""

import os
import sys

import pytest

from tests.bench.measure import Measurement, RunError, compare, run


def test_a_program_is_measured_with_its_children():
    burn = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**7))'])"
    taken = run("python", [sys.executable, "-c", burn], os.environ)
    assert taken.cpu > 0.05
    assert taken.wall > 0.05
    assert taken.peak_mib > 1


def test_a_program_that_fails_is_no_measurement():
    with pytest.raises(RunError, match="ended with 7: alas"):
        run("x", [sys.executable, "-c", "import sys; sys.stderr.write('alas'); exit(7)"], {})


def test_the_table_shows_medians_and_ratios_to_the_first():
    taken = [Measurement("ours", wall, 1.0, 20, {"PutObject": 5}) for wall in (1.0, 9.0, 2.0)]
    taken += [Measurement("theirs", 8.0, 4.0, 40)]
    table = compare("job", taken).splitlines()
    assert table[3].split() == ["ours", "2.00", "1.00", "20", "1.0×", "PutObject:5"]
    assert table[4].split()[:2] == ["theirs", "8.00"]
    assert "4.0×" in table[4]
