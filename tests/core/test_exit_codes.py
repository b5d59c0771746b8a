"""Exit codes: the numbers that shells and schedulers know."""

import os
import signal

from luthier.core.exit_codes import INTERRUPTED, STOPPED


def test_they_are_the_numbers_that_other_programs_know():
    assert os.EX_TEMPFAIL == STOPPED
    assert 128 + signal.SIGINT == INTERRUPTED
