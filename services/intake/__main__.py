"""Starts intake."""

from services.intake.main import intake
from shared.config import environment
from shared.service import run_service

if __name__ == "__main__":
    host = environment().get("BATON_HTTP_HOST", "") or "127.0.0.1"
    run_service("intake", lambda world: intake(world, host))
