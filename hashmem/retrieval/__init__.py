"""Query → chunks: exact search over summaries, and BM25 over the texts of the candidates."""

from hashmem.retrieval.bm25 import bm25, inverse_document_frequency
from hashmem.retrieval.exact import scores_of, top_k, weigh_rare

__all__ = ["bm25", "inverse_document_frequency", "scores_of", "top_k", "weigh_rare"]
