"""Human review: an answer that waits for a person, and what the person said."""

from pydantic import Field, model_validator

from schemas.envelope import Fact
from schemas.messages import Chat, ReviewAction, Verdict

TEXT_CHARS_MAX = 200_000


class ReviewDecision(Fact):
    """What a person decided about an answer under review. Its key is the key of the review's record.

    The first decision that comes in time counts; later ones, and those on requests that are not under review, do nothing.
    """

    request_id: str
    action: ReviewAction
    text: str | None = Field(None, max_length=TEXT_CHARS_MAX, description="edit: what is delivered instead of the answer")
    by: str = Field("", max_length=128, description="who decided, as the verdict will say")
    at_ms: int = 0

    @model_validator(mode="after")
    def _edit_has_text(self) -> "ReviewDecision":
        if (self.action is ReviewAction.EDIT) != (self.text is not None):
            raise ValueError("text: an edit needs it, and nothing else has it")
        return self


class Review(Fact):
    """An answer that is parked until a person or its deadline decides; or, with `decision`, what the person said.

    The record of the parked answer stays open in the log until then: nothing else remembers it.
    """

    verdict: Verdict | None = Field(None, description="what the gate would have said; null in the record of a decision")
    chat: Chat | None = Field(None, description="what was asked")
    reason: str = Field("", description="why the policy wants a review; never quotes the answer")
    until_ms: int = Field(0, description="when the default applies, epoch ms")
    default: ReviewAction = Field(ReviewAction.REJECT, description="what applies then: accept or reject")
    decision: ReviewDecision | None = None
