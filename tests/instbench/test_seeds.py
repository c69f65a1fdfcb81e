from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instbench.seeds import derive_seed

texts = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)


@given(texts, st.integers(1, 9), texts, st.integers(0, 9), st.integers(0, 2**32))
def test_a_seed_is_a_63_bit_number_and_depends_on_every_part(benchmark, version, key, repeat, seed):
    first = derive_seed(benchmark, version, key, repeat=repeat, seed=seed)
    assert 0 <= first < 2**63
    assert first == derive_seed(benchmark, version, key, repeat=repeat, seed=seed)
    others = {
        derive_seed(benchmark + "x", version, key, repeat=repeat, seed=seed),
        derive_seed(benchmark, version + 1, key, repeat=repeat, seed=seed),
        derive_seed(benchmark, version, key + "x", repeat=repeat, seed=seed),
        derive_seed(benchmark, version, key, repeat=repeat + 1, seed=seed),
        derive_seed(benchmark, version, key, repeat=repeat, seed=seed + 1),
    }
    assert first not in others
    assert len(others) == 5


def test_seeds_never_change():
    assert derive_seed("shapes-box", 1, "000002000000") == 6647502589517136823
