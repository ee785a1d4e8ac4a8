"""tasks and escalations -> plans: chooses which models may answer, in which order, and says why."""
