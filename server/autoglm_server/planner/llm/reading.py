"""One reply of a model, read as it comes: what it gives the plan, and at its end whether it was well."""

from __future__ import annotations

from collections.abc import Iterator

from autoglm.model import ErrorReason, Failure
from autoglm_server.planner.llm import failures
from autoglm_server.planner.llm.backend import Delta, Reply
from autoglm_server.planner.llm.drafts import read_output, read_step
from autoglm_server.planner.llm.scanner import (
    AnswerPiece,
    Ending,
    Found,
    NotePiece,
    OutputText,
    Scanner,
    StepText,
)
from autoglm_server.planner.planner import AnswerOutput, AnswerText, Note, RoundItem

PARTS_MAX = 64
"""The most parts of a reply, such as function calls, that are read."""
AFTER_CHARS_MAX = 20_000
"""How much a model may write after its plan is complete, before it is not listened to any more."""
DRAFTS_OVER_MAX = 10
"""How many drafts more than may be added are read; each of them is refused and told."""
NOTE_CHARS_MAX = 10_000


class Reading:
    """Reads one reply."""

    def __init__(self, steps_left: int) -> None:
        """Expect up to ``steps_left`` steps."""
        self.enough = False
        """Whether the rest of the reply need not be read."""
        self._over = False
        """Whether it wrote more steps than are read."""
        self._room = steps_left + DRAFTS_OVER_MAX
        self._scanners: dict[int, Scanner] = {}
        self._drafts = 0
        self._answered = False
        self._noted = 0
        self._after = 0

    def feed(self, delta: Delta) -> Iterator[RoundItem]:
        """Read more; give what became complete."""
        scanner = self._scanners.get(delta.part)

        if scanner is None:
            if len(self._scanners) >= PARTS_MAX:
                self.enough = True
                return

            scanner = self._scanners[delta.part] = Scanner()

        self._after += len(delta.text) if scanner.done else 0
        self.enough = self.enough or self._after > AFTER_CHARS_MAX

        for found in scanner.feed(delta.text):
            yield from self._item(found)

            if self.enough:
                return

    def _item(self, found: Found) -> Iterator[RoundItem]:
        match found:
            case StepText(text):
                self._drafts += 1
                yield read_step(text)

                if self._drafts >= self._room:
                    self.enough = self._over = True
                    yield Note(f"the model went on after {self._drafts} steps; the rest was not read\n")
            case AnswerPiece(text):
                self._answered = True
                yield AnswerText(text)
            case NotePiece(text):
                kept = text[: max(0, NOTE_CHARS_MAX - self._noted)]
                self._noted += len(kept)
                yield Note(kept)
            case OutputText(text):
                try:
                    output = read_output(text)
                except ValueError:
                    yield Note("the structured answer was no JSON and was left out\n")
                    return

                self._answered = True
                yield AnswerOutput(output)

    @property
    def complete(self) -> bool:
        """Whether the model wrote a whole plan or answer, so that it does not matter how the connection ended."""
        endings = {scanner.end() for scanner in self._scanners.values()}
        return Ending.COMPLETE in endings and not endings & {Ending.CUT, Ending.MALFORMED, Ending.TOO_LARGE}

    def finish(self, reply: Reply, model: str, max_output_tokens: int) -> tuple[list[RoundItem], Failure | None]:
        """Give what is left of the reply once it has ended, and what was wrong with it."""
        if self.complete or self._over:
            return self._prose_as_note(), None

        if reply.finish_reason == "content_filter":
            return [], self._refused(reply, model)

        endings = {scanner.end() for scanner in self._scanners.values()}
        anything = self._drafts > 0

        if Ending.TOO_LARGE in endings:
            return [], failures.failed(f"{model} wrote more than can be read as a plan", retryable=anything)

        if Ending.MALFORMED in endings:
            return [], failures.failed(f"what {model} wrote is not well-formed JSON", retryable=True)

        if reply.finish_reason == "length":
            message = (
                f"{model} came to the limit of {max_output_tokens} output tokens before it was done: "
                "raise planner.max_output_tokens or options.budget.max_tokens"
            )
            return [], failures.failed(message, retryable=anything)

        if Ending.CUT in endings or reply.finish_reason in ("", "error"):
            return [], failures.failed(f"{model} broke off in the middle", retryable=True)

        return self._of_prose(model)

    def _of_prose(self, model: str) -> tuple[list[RoundItem], Failure | None]:
        """Take plain words as the answer, unless they look like a plan that failed."""
        prose = "".join(scanner.prose for scanner in self._scanners.values()).strip()

        if not prose:
            return [], failures.failed(f"{model} wrote nothing", ErrorReason.PLANNER_EMPTY, retryable=True)

        if prose[0] in "{[" or prose.startswith("```"):
            return [], failures.failed(f"what {model} wrote is not well-formed JSON", retryable=True)

        return [AnswerText(prose)], None

    def _prose_as_note(self) -> list[RoundItem]:
        prose = "".join(scanner.prose for scanner in self._scanners.values())
        words = prose.replace("```json", "").replace("```", "").strip()
        return [Note(words[:NOTE_CHARS_MAX])] if words else []

    def _refused(self, reply: Reply, model: str) -> Failure:
        said = failures.masked(reply.refusal)[: failures.TOLD_CHARS_MAX]
        return failures.failed(f"{model} refused to answer this request" + (f": {said}" if said else ""))
