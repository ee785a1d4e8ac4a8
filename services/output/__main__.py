"""Starts output."""

from services.output.main import output
from shared.service import run_service

if __name__ == "__main__":
    run_service("output", output)
