"""completions -> verdicts or escalations: checks an answer, then accepts it, asks for a stronger model, or gives up."""
