"""Constrained sampling with llguidance: which tokens may come next under a JSON schema or a Lark grammar.

Not for sampling itself: the sampler masks logits with `TokenGuide.mask` and reports the token it drew with `advance`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from journeyman.errors import EngineError, JourneymanError, SettingError, stops_everything
from journeyman.types.sampling import Grammar, JsonSchemaGrammar

# Small models pad JSON with endless whitespace when they may.
_JSON_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class TokenGuide:
    """One running sample under a grammar. Not thread-safe."""

    def __init__(self, matcher: Any, vocabulary_size: int, stop_token_ids: tuple[int, ...]) -> None:
        self._matcher = matcher
        self._vocabulary_size = vocabulary_size
        self._stop_token_ids = stop_token_ids

    @property
    def is_finished(self) -> bool:
        """Nothing but a stop token can follow."""
        return bool(self._matcher.is_stopped())

    def mask(self) -> torch.Tensor:
        """Bool tensor of shape [vocabulary_size]: True where the token may come next. Stop tokens only when the text is complete.

        Raises SettingError when nothing can follow.
        """
        if self.is_finished:
            return self._only_stop()
        raw = bytearray(self._matcher.compute_bitmask())
        bits = torch.frombuffer(raw, dtype=torch.uint8)
        unpacked = (bits[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        allowed = unpacked.flatten()[: self._vocabulary_size].bool()
        self._raise_on_error()
        if self._matcher.is_accepting():
            allowed[list(self._stop_token_ids)] = True
        return allowed

    def advance(self, token_id: int) -> None:
        """Report the token drawn.

        Raises EngineError for one that `mask` did not allow, SettingError when the grammar is too large to go on.
        """
        if token_id in self._stop_token_ids and (self.is_finished or self._matcher.is_accepting()):
            return
        if self._matcher.try_consume_tokens([token_id]) != 1:
            self._raise_on_error()
            raise EngineError(f"token {token_id} does not follow the grammar", reason="grammar_dead_end")

    def _only_stop(self) -> torch.Tensor:
        allowed = torch.zeros(self._vocabulary_size, dtype=torch.bool)
        allowed[list(self._stop_token_ids)] = True
        return allowed

    def _raise_on_error(self) -> None:
        if self._matcher.is_error():
            fault = self._matcher.get_error().partition("\n")[0]
            hint = "simplify the schema: it is too large, or a part of it that refers to itself has no way to end"
            raise SettingError(f"no text follows this grammar: {fault}", hint=hint, reason="grammar_dead_end")


class GrammarCompiler:
    """Compiles grammars for one tokenizer. Building one takes about a second; keep it.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        vocabulary_size: rows of the model's output layer when they are more than the tokenizer's tokens.
    """

    def __init__(self, tokenizer: Any, vocabulary_size: int | None = None) -> None:
        import llguidance.hf

        self._vocabulary_size = max(vocabulary_size or 0, len(tokenizer))
        self._eos_token_id = int(tokenizer.eos_token_id)
        # A large vocabulary is fine; llguidance must know its size to fill masks of it.
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=self._vocabulary_size)

    def start(self, grammar: Grammar, stop_token_ids: Sequence[int] = ()) -> TokenGuide:
        """Begin a sample under `grammar`.

        Args:
            grammar: a JSON schema or a Lark grammar in llguidance's dialect.
            stop_token_ids: tokens that may end the sample; the tokenizer's end-of-sequence token when empty.

        Raises SettingError for a schema or grammar that cannot be compiled.
        """
        try:
            matcher, problem = self._matcher(grammar)
        except JourneymanError:
            raise
        except BaseException as error:
            if stops_everything(error):
                raise
            matcher, problem = None, f"{type(error).__name__}: {error}"
        if matcher is None or problem:
            kind = "JSON schema" if isinstance(grammar, JsonSchemaGrammar) else "grammar"
            raise SettingError(
                f"this {kind} cannot constrain a reply: {problem.strip()}", hint="simplify the schema", reason="grammar_refused"
            )
        return TokenGuide(matcher, self._vocabulary_size, tuple(stop_token_ids) or (self._eos_token_id,))

    def _matcher(self, grammar: Grammar) -> tuple[Any, str]:
        """A matcher, and what is wrong with the grammar; nothing, if it is empty."""
        from llguidance import LLMatcher

        text = self._source(grammar)
        if problem := LLMatcher.validate_grammar(text, self._tokenizer):
            return None, str(problem)
        matcher = LLMatcher(self._tokenizer, text, log_level=0)
        return matcher, str(matcher.get_error()) if matcher.is_error() else ""

    def _source(self, grammar: Grammar) -> str:
        from llguidance import LLMatcher

        if not isinstance(grammar, JsonSchemaGrammar):
            return str(LLMatcher.grammar_from_lark(grammar.grammar))
        try:
            schema = json.loads(grammar.schema)
        except ValueError as error:
            raise SettingError(f"the JSON schema is no JSON: {error}") from error
        if not isinstance(schema, dict):
            raise SettingError(f"a JSON schema is an object, got {type(schema).__name__}")
        return str(LLMatcher.grammar_from_json_schema(schema, defaults=_JSON_OPTIONS))
