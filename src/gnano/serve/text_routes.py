"""Routes that show what a model reads: ids and texts of tokens, and prompts of conversations."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gnano.data.sft.chat_template import ALPACA
from gnano.data.sft.encoding import encode_prompt
from gnano.serve.api_errors import ApiError
from gnano.serve.api_requests import parse_ids, parse_object, parse_text, parse_turns
from gnano.serve.api_responses import TokenTexts
from gnano.serve.guards import get_record
from gnano.serve.model_worker import LoadedModel
from gnano.serve.server_state import ServerState

T = TypeVar("T")


class TextRoutes:
    """The routes of all models."""

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.routes = [
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/apply-template", self.apply_template, methods=["POST"]),
        ]

    async def tokenize(self, request: Request) -> Response:
        """Return the ids of a text, or of the prompt of a conversation."""
        body = parse_object(await request.body())
        if ("messages" in body) == ("content" in body):
            raise ApiError("Send either content or messages.", "content")
        with_pieces = body.get("with_pieces", False)
        if not isinstance(with_pieces, bool):
            raise ApiError("with_pieces must be true or false.", "with_pieces")
        turns = parse_turns(body) if "messages" in body else ()
        text = "" if turns else parse_text(body, "content")

        def encode(model: LoadedModel) -> dict[str, Any]:
            ids = _prompt_ids(model, turns) if turns else model.engine.tokenizer.encode(text)
            texts = TokenTexts(model.engine.tokenizer)
            pieces = {"pieces": [texts.text_of(token) for token in ids]} if with_pieces else {}
            return {"tokens": ids, **pieces}

        return JSONResponse(await self._run(request, body, encode))

    async def detokenize(self, request: Request) -> Response:
        """Return the text of ids."""
        body = parse_object(await request.body())
        ids = parse_ids(body.get("tokens"), "tokens")

        def decode(model: LoadedModel) -> str:
            try:
                return model.engine.tokenizer.decode(ids)
            except ValueError as error:
                raise ApiError(str(error), "tokens") from None

        return JSONResponse({"content": await self._run(request, body, decode)})

    async def apply_template(self, request: Request) -> Response:
        """Return the prompt of a conversation, as text and as tokens."""
        body = parse_object(await request.body())
        turns = parse_turns(body)

        def apply(model: LoadedModel) -> dict[str, Any]:
            ids, texts = _prompt_ids(model, turns), TokenTexts(model.engine.tokenizer)
            return {
                "prompt": b"".join(map(texts.bytes_of, ids)).decode(errors="replace"),
                "tokens": ids,
                "pieces": [texts.text_of(token) for token in ids],
                "special": [texts.is_special(token) for token in ids],
            }

        return JSONResponse(await self._run(request, body, apply))

    async def _run(
        self, request: Request, body: dict[str, Any], function: Callable[[LoadedModel], T]
    ) -> T:
        entry = self.state.models.find(parse_text(body, "model", ""))
        get_record(request.scope).model = entry.id
        async with self.state.models.use(entry) as model:
            return await self.state.tokenize(partial(function, model))


def _prompt_ids(model: LoadedModel, turns: Sequence[Any]) -> list[int]:
    try:
        return encode_prompt(turns, model.template or ALPACA, model.engine.tokenizer)
    except ValueError as error:  # a template may refuse a conversation
        raise ApiError(f"messages cannot be used: {error}.", "messages") from None
