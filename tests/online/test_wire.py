"""How values stand in keys and records, a column at a time."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from featurestore.online.wire import byte_order, cut

PREFIXES = st.sampled_from([b"", b"p", b"project:12345678r"])
ENDS = st.sampled_from([0, 1, 3, 8, 9, 16]).flatmap(lambda size: st.lists(st.binary(min_size=size, max_size=size)))
KEYS = st.one_of(
    st.builds(lambda prefix, ends: [prefix + end for end in ends], PREFIXES, ENDS), st.lists(st.binary(max_size=20))
)


@given(keys=KEYS, start=st.integers(0, 3))
def test_keys_come_in_the_order_of_their_bytes(keys: list[bytes], start: int) -> None:
    """Whatever their length, and what they have in common; in a part of an array, too."""
    array = pa.array(keys, pa.large_binary()).slice(start)
    assert cut(array.take(pa.array(byte_order(array)))) == sorted(keys[start:])
