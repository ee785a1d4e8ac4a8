"""What everything that people write in `baton.yaml` is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]


class Strict(BaseModel):
    """Config is written by people: an unknown field is a typo and is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
