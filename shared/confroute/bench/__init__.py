"""Compares routers on RouteLLM's benchmarks and on recorded runs, all on the same axes."""

from confroute.bench.data import Benchmark, load_benchmarks
from confroute.bench.recorded import RecordedReplay, replay_recorded
from confroute.bench.run import Replay, replay

__all__ = ["Benchmark", "RecordedReplay", "Replay", "load_benchmarks", "replay", "replay_recorded"]
