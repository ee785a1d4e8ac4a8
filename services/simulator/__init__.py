"""A stand-in AI provider: OpenAI's wire format, seeded latency and faults, real little answers, its own invoice."""
