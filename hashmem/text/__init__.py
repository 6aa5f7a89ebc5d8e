"""Text → chunks: reading files, cutting text, and the words used everywhere here."""

from hashmem.text.chunking import Chunk, chunk_content, chunk_lines, chunk_words
from hashmem.text.files import TextFiles
from hashmem.text.tokenizing import STOP_WORDS, HashedWords, hash_words, is_stop_word, words

__all__ = [
    "STOP_WORDS",
    "Chunk",
    "HashedWords",
    "TextFiles",
    "chunk_content",
    "chunk_lines",
    "chunk_words",
    "hash_words",
    "is_stop_word",
    "words",
]
