"""Run the Python blocks of readmes as a user would: ``python run_examples.py README.md ...``.

The blocks import ``my_app``, which stands for the reader's application: it is made here, of five texts over Chroma.
Every block must learn something and leave the store as it was, bit for bit. This file imports nothing of the checkout,
so that it can try installed packages; ``--installed`` refuses packages that come from anywhere else.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIMENSION = 64
WORDS = {"invoice": "bill", "password": "login", "delivery": "parcel", "refund": "money", "account": "profile"}
TEXTS = {
    "invoice": "what went wrong with an invoice and where it is",
    "password": "how to change a password you lost",
    "delivery": "please help: no delivery yet",
    "refund": "is there a refund again",
    "account": "change where an account is",
}
FORMS = ["where is my {}", "{} is wrong", "i lost the {}", "change {} please", "{} again", "help with {}", "no {} yet"]
FORMS += ["the {} went away", "is there a {}", "how to {}", "what about my {}", "please {}", "and my {}", "why no {}"]


def embed(text: str) -> list[float]:
    """Return counts of words, hashed, at unit length: a model that needs no download and knows no synonyms."""
    counts = np.full(DIMENSION, 1e-3)
    for word in re.findall(r"\w+", text.lower()):
        counts[int(hashlib.sha256(word.encode()).hexdigest(), 16) % DIMENSION] += 1
    vector: list[float] = (counts / np.linalg.norm(counts)).tolist()
    return vector


def write_pairs(path: Path) -> None:
    """Write queries in users' words, each with the node that answers it."""
    rows = [f"{form.format(word)},{subject}\n" for subject, word in WORDS.items() for form in FORMS]
    path.write_text("query,node_id\n" + "".join(rows), encoding="utf-8")


class Application(ModuleType):
    """The module ``my_app``; what is imported from it is made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__("my_app")
        self.stores: list[Any] = []
        self.folder = folder
        self.framework = ""

    def __getattr__(self, name: str) -> Any:
        makers = {"index": self._index, "vectorstore": self._vectorstore, "prompt": self._prompt, "llm": self._llm}
        if name not in makers:
            raise AttributeError(name)
        made = makers[name]()
        setattr(self, name, made)
        return made

    def _index(self) -> Any:
        import chromadb
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.base.embeddings.base import BaseEmbedding
        from llama_index.core.schema import TextNode
        from llama_index.vector_stores.chroma import ChromaVectorStore

        class WordEmbedding(BaseEmbedding):  # type: ignore[misc, unused-ignore]
            def _get_query_embedding(self, query: str) -> list[float]:
                return embed(query)

            def _get_text_embedding(self, text: str) -> list[float]:
                return embed(text)

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return embed(query)

        collection = chromadb.PersistentClient(str(self.folder / "llama")).create_collection("docs")
        context = StorageContext.from_defaults(vector_store=ChromaVectorStore(chroma_collection=collection))
        nodes = [TextNode(id_=subject, text=text) for subject, text in TEXTS.items()]
        self.stores.append(collection)
        return VectorStoreIndex(nodes, storage_context=context, embed_model=WordEmbedding(model_name="words"))

    def _vectorstore(self) -> Any:
        from langchain_chroma import Chroma
        from langchain_core.documents import Document
        from langchain_core.embeddings import Embeddings

        class WordEmbeddings(Embeddings):
            def embed_query(self, text: str) -> list[float]:
                return embed(text)

            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [embed(text) for text in texts]

        store = Chroma("docs", WordEmbeddings(), persist_directory=str(self.folder / "langchain"))
        store.add_documents([Document(id=subject, page_content=text) for subject, text in TEXTS.items()])
        self.stores.append(store._collection)
        return store

    def _prompt(self) -> Any:
        from langchain_core.prompts import ChatPromptTemplate

        return ChatPromptTemplate.from_template("Answer {question} from {context}")

    def _llm(self) -> Any:
        if self.framework == "langchain":
            from langchain_core.language_models import FakeListChatModel

            return FakeListChatModel(responses=["It is on its way."])
        from llama_index.core.llms import MockLLM

        return MockLLM()


def vectors_of(collection: Any) -> dict[str, bytes]:
    """Return the vectors of a Chroma collection as they are stored."""
    found = collection.get(include=["embeddings"])
    return {node: np.asarray(row).tobytes() for node, row in zip(found["ids"], found["embeddings"], strict=True)}


def run_block(code: str, name: str, folder: Path) -> None:
    """Run one block in ``folder``, and see that it learned something and left the store as it was.

    Raises:
        RuntimeError: the nudge does not improve, or the store is not as it was.
    """
    application = Application(folder)
    application.framework = "langchain" if "langchain" in code else "llama-index"
    sys.modules["my_app"] = application
    write_pairs(folder / "clicks.csv")
    os.chdir(folder)
    wanted = re.findall(r"\b(index|vectorstore)\b", code)[0]
    getattr(application, wanted)
    before = vectors_of(application.stores[0])
    names: dict[str, Any] = {"__name__": "__readme__"}
    exec(compile(code, name, "exec"), names)
    if not names["nudge"].improves:
        raise RuntimeError(f"{name}: the nudge does not improve on held-out pairs")
    if vectors_of(application.stores[0]) != before:
        raise RuntimeError(f"{name}: the store is not as it was after the rollback")


def check_installed(module: str) -> str:
    """Return where a module comes from.

    Raises:
        RuntimeError: it is not an installed package.
    """
    found = importlib.import_module(module)
    path = str(found.__file__)
    if "site-packages" not in path and "dist-packages" not in path:
        raise RuntimeError(f"{module} comes from {path}, not from an installed package")
    return path


def main() -> None:
    """Run the blocks of the files that are named."""
    parser = argparse.ArgumentParser(description="Run the Python blocks of readmes.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--installed", action="store_true", help="refuse packages that are not installed")
    arguments = parser.parse_args()
    if arguments.installed:
        for module in ("nudge_rag", "langchain_nudge", "llama_index.retrievers.nudge"):
            check_installed(module)
    start = Path.cwd()
    for file in arguments.files:
        blocks = BLOCK.findall((start / file).read_text(encoding="utf-8"))
        if not blocks:
            raise SystemExit(f"{file} has no Python block")
        for number, code in enumerate(blocks, 1):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                run_block(code, f"{file.name}, block {number}", Path(folder))
                os.chdir(start)
            sys.stdout.write(f"{file}: block {number} runs\n")


if __name__ == "__main__":
    main()
