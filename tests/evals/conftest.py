from tests.infer.conftest import engine, make_engine, save_engine, tokenizer

__all__ = ["engine", "make_engine", "save_engine", "tokenizer"]
