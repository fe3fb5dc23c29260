"""Recorded runs made up for the tests."""

import numpy as np
import pytest

from confroute.recording import RecordedSample, Row, Side, with_signals


def made_and_measured(*args, **kwargs):
    """`rows_made` with every signal measured, which each fit would do anew."""
    return [with_signals(row) for row in rows_made(*args, **kwargs)]


def rows_made(n=400, *, seed=0, samples=True, cloud=True, cost=True):
    """Rows whose log-probabilities and samples each tell part of the edge's errors; the cloud is right on 9 of 10."""
    generator = np.random.default_rng(seed)
    for i in range(n):
        right = bool(generator.random() < 0.6)
        doubt = abs(generator.normal(0.3 if right else 0.7, 0.3))
        drawn = tuple(
            RecordedSample(text="7" if generator.random() < (0.85 if right else 0.45) else "8")
            for _ in range(5 if samples else 0)
        )
        yield Row(
            id=str(i),
            dataset="made",
            prompt="How many?",
            reference="7",
            edge=Side(
                model="small",
                text="7",
                quality=float(right),
                logprobs=(-doubt,),
                samples=drawn,
                usage={"input_tokens": 100, "output_tokens": 1},
                latency_s=0.5,
                cost_usd=0.0001 if cost else None,
            ),
            cloud=Side(
                model="large",
                text="7",
                quality=float(generator.random() < 0.9),
                usage={"input_tokens": 90, "output_tokens": 2},
                latency_s=1.0,
                cost_usd=0.002 if cost else None,
            )
            if cloud
            else None,
        )


@pytest.fixture(scope="session")
def rows():
    """400 rows, measured once."""
    return made_and_measured()


@pytest.fixture(scope="session")
def plain():
    """400 rows without samples, for fits of the log-probability alone."""
    return made_and_measured(samples=False)


@pytest.fixture(scope="session")
def made():
    """The function that makes them."""
    return rows_made
