"""Morgana builds a multimodal RAG pipeline, then attacks, defends and measures it."""
