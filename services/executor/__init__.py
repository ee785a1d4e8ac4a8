"""plans.<lane> -> attempts, completions, observations: calls models and keeps the ledger."""
