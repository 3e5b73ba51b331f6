"""Adapters for the tools that people already have; each needs its package, and none is imported with semsearch.

    from semsearch.integrations.langchain import SemsearchEmbeddings, SemsearchRetriever, SemsearchVectorStore
    from semsearch.integrations.llama_index import SemsearchEmbedding, SemsearchRetriever
    from semsearch.integrations.haystack import SemsearchDocumentStore, SemsearchReader, SemsearchRetriever, ...
    from semsearch.integrations.sklearn import SentenceEncoder

A module whose package is not installed raises MissingExtraError, an ImportError that names the extra.
"""
