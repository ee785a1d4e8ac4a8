"""Starts one executor: `python -m services.executor`."""

from services.executor.main import Executor
from shared.service import run_service

if __name__ == "__main__":
    run_service("executor", Executor)
