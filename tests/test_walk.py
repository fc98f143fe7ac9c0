"""Whoever follows one sample through a build need not change files more often than this."""

from pathlib import Path

import walk

MOST = 16  # two for labels beside images; 29 in one flat package with the readers in it, 17 of them not in readers


def test_the_walk_of_a_sample_is_short(tmp_path, capsys):
    way = walk.hops(Path(__file__).parents[1], tmp_path / "pairs.zarr")
    assert capsys.readouterr().out.count("digest") == 1
    called = [function for _, (_, function) in way]
    assert [called.count(step) for step in ("make_plan", "make_shard", "simulate_pairs", "write_shard")] == [1, 1, 1, 1]
    assert len(way) <= MOST, way
