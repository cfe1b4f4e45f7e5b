"""What strangers write is read or refused, and never a surprise: `make nightly-fuzz` looks longer, by coverage."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent / "fuzz"))

from parsers import PARSERS


def mutated(seeds):
    """A seed with bytes replaced, put in or taken out somewhere; or bytes of no seed."""
    cut = st.tuples(st.sampled_from(seeds), st.integers(0, 400), st.integers(0, 8), st.binary(max_size=12))
    return cut.map(lambda one: one[0][: one[1]] + one[3] + one[0][one[1] + one[2] :]) | st.binary(max_size=200)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_reads_its_input_or_refuses_it(name):
    parser, seeds = PARSERS[name]
    for seed in seeds:
        parser(seed)

    @given(mutated(seeds))
    def holds(data):
        parser(data)

    holds()
