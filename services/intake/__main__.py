"""Starts intake."""

from services.intake.main import intake
from shared.service import run_service

if __name__ == "__main__":
    run_service("intake", intake)
