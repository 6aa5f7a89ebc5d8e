"""Chunks: they give the text back, keep their sizes and places, and survive edits elsewhere."""

import argparse
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashmem.text import chunk_content, chunk_lines, chunk_words

texts = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="ab \n\té中😀", max_size=300),
    st.lists(
        st.sampled_from(["def f():\n", "    pass\n", "\n", "x = 1\r\n", "é" * 30]), max_size=40
    ).map("".join),
)
CUTTERS = {
    "lines": lambda text: chunk_lines(text, 3),
    "words": lambda text: chunk_words(text, 4),
    "content": lambda text: chunk_content(text, 5, 20),
}


@pytest.mark.parametrize("cut", CUTTERS.values(), ids=CUTTERS)
@given(text=texts)
def test_chunks_give_the_text_back_and_say_where_they_stand(cut, text):
    chunks = cut(text)
    assert "".join(chunk.text for chunk in chunks) == text
    for chunk in chunks:
        assert chunk.text
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.first_line == text.count("\n", 0, chunk.start) + 1
        assert chunk.last_line == text.count("\n", 0, chunk.end - 1) + 1


@given(texts, st.integers(1, 9), st.data())
def test_windows_overlap_by_what_was_asked(text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    lines = text.split("\n")
    lines = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    chunks = chunk_lines(text, size, overlap)
    step = size - overlap
    for i, chunk in enumerate(chunks):
        assert chunk.text == "".join(lines[i * step : i * step + size])
    assert not lines or chunks[-1].last_line == len(lines)
    assert len(chunks) < 2 or chunks[-2].last_line < len(lines)


@given(texts, st.integers(1, 30), st.integers(0, 30))
def test_content_chunks_keep_their_sizes(text, minimum, more):
    chunks = chunk_content(text, minimum, minimum + more)
    assert all(len(chunk.text) <= minimum + more for chunk in chunks)
    assert all(len(chunk.text) >= minimum for chunk in chunks[:-1])


@given(st.data())
def test_an_insertion_changes_only_the_chunks_near_it(data):
    text = inspect.getsource(argparse)
    at = data.draw(st.integers(0, len(text)))
    added = data.draw(st.text(alphabet="ab \n", max_size=200))
    before = [chunk.text for chunk in chunk_content(text)]
    after = [chunk.text for chunk in chunk_content(text[:at] + added + text[at:])]
    same = len(set(before) & set(after))
    assert same >= len(set(before)) - 8  # of about 100


@given(st.data())
def test_an_insertion_into_one_long_line_changes_only_the_chunks_near_it(data):
    text = inspect.getsource(argparse).replace("\n", " ")
    at = data.draw(st.integers(0, len(text)))
    before = [chunk.text for chunk in chunk_content(text)]
    after = [chunk.text for chunk in chunk_content(text[:at] + "word" + text[at:])]
    assert len(set(before) & set(after)) >= len(set(before)) - 12


def test_a_line_of_ten_megabytes_is_cut():
    text = "abcdefghi " * 1_000_000
    chunks = chunk_content(text)
    assert "".join(chunk.text for chunk in chunks) == text
    assert {(chunk.first_line, chunk.last_line) for chunk in chunks} == {(1, 1)}
    assert len(chunk_lines(text)) == 1


def test_borders_stand_before_what_begins_at_the_margin():
    text = "".join(f"def f{i}():\n    a = {i}\n\n    return a\n\n\n" for i in range(50))
    chunks = chunk_content(text, 30, 120)
    assert all(chunk.text.startswith("def f") for chunk in chunks)


def test_windows_line_ends_change_no_border():
    text = "".join(f"def f{i}():\r\n    a = {i}\r\n\r\n    return a\r\n\r\n" for i in range(50))
    chunks = chunk_content(text, 30, 150)
    assert all(chunk.text.startswith("def f") for chunk in chunks)


def test_borders_are_the_same_for_ever():
    # Chunks are addressed by their content: another border is another chunk. A change of these
    # makes every store keep everything twice.
    text = "".join(f"line {i * i}\n" + "\n" * (i % 7 == 0) for i in range(200)) + "é" + "x" * 500
    assert [chunk.start for chunk in chunk_content(text, 100, 400)] == BORDERS


BORDERS = [0, 320, 533, 817, 1114, 1426, 1738, 2050, 2150, 2250]


@pytest.mark.parametrize("cut", [chunk_lines, chunk_words])
def test_steps_that_go_nowhere_are_refused(cut):
    for size, overlap in ((0, 0), (3, 3), (3, -1)):
        with pytest.raises(ValueError, match="must be"):
            cut("a", size, overlap)


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 5), (6, 5)])
def test_impossible_sizes_are_refused(minimum, maximum):
    with pytest.raises(ValueError, match="sizes"):
        chunk_content("a", minimum, maximum)
