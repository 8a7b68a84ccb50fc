"""What the decoder reads is what was written, and nothing else is taken for it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.changes.pgoutput import (
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    Message,
    Origin,
    PgoutputError,
    Relation,
    Truncate,
    Type,
    Unchanged,
    Update,
    decode,
)
from tests.changes.pgoutput_encoder import encode

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
oids = st.integers(0, 2**32 - 1)
lsns = st.integers(0, 2**64 - 1)
moments = st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
rows = st.lists(st.none() | st.just(Unchanged.TOAST) | texts, max_size=6).map(tuple)
columns = st.builds(Column, texts, oids, st.booleans(), st.integers(-1, 2**31 - 1))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Begin, lsns, moments, oids),
    st.builds(Commit, lsns, lsns, moments),
    st.builds(Origin, lsns, texts),
    st.builds(Relation, oids, texts, texts, st.sampled_from("dnfi"), st.lists(columns, max_size=5).map(tuple)),
    st.builds(Type, oids, texts, texts),
    st.builds(Insert, oids, rows),
    st.builds(Update, oids, rows, st.booleans(), rows),
    st.builds(Update, oids, st.none(), st.just(False), rows),
    st.builds(Delete, oids, rows, st.booleans()),
    st.builds(Truncate, st.lists(oids, max_size=4).map(tuple), st.integers(0, 3)),
)


@given(messages)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages, st.data())
def test_a_message_that_is_cut_off_is_refused(message: Message, data: st.DataObject) -> None:
    encoded = encode(message)
    with pytest.raises(PgoutputError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(messages, st.binary(min_size=1, max_size=5))
def test_a_message_with_something_behind_it_is_refused(message: Message, more: bytes) -> None:
    with pytest.raises(PgoutputError):
        decode(encode(message) + more)


@given(st.binary(max_size=60))
def test_what_is_no_message_is_refused_in_our_words(noise: bytes) -> None:
    try:
        message = decode(noise)
    except PgoutputError:
        return
    assert encode(message) is not None


@pytest.mark.parametrize("letter", ["S", "E", "c", "A", "b", "P", "r"])
def test_messages_of_later_protocols_are_refused(letter: str) -> None:
    with pytest.raises(PgoutputError, match="protocol 1"):
        decode(letter.encode() + b"\0" * 40)
